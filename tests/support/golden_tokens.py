"""The golden files: tiny vocabularies, and the ids that llama.cpp and transformers give the awkward texts."""

import json
from collections.abc import Mapping
from pathlib import Path

GOLDEN_FOLDER = Path(__file__).parents[1] / "engine" / "text" / "golden"


def read_golden(name: str) -> dict[str, dict[str, object]]:
    return json.loads((GOLDEN_FOLDER / f"{name}.json").read_text("utf-8"))


def write_golden(name: str, content: Mapping[str, object]) -> None:
    lines = [f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}" for key, value in content.items()]
    (GOLDEN_FOLDER / f"{name}.json").write_text("{\n" + ",\n".join(lines) + "\n}\n", "utf-8")
