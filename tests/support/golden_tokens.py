"""The golden files: tiny vocabularies, and the ids that llama.cpp gives the awkward texts with them."""

import json
from pathlib import Path

GOLDEN_FOLDER = Path(__file__).parents[1] / "engine" / "text" / "golden"


def read_golden(name: str) -> dict[str, dict[str, object]]:
    return json.loads((GOLDEN_FOLDER / f"{name}.json").read_text("utf-8"))
