"""Makes `demo_model_transformers.json` beside it: what transformers makes of texts with the demo model's file.

    python -m tests.engine.text.golden.make_demo_golden

It takes transformers seconds to read a GGUF file, so the default tests compare with this record, and a
slow one tells that it still is what transformers gives.
"""

from pathlib import Path

import transformers

from engine.source import fetch_demo_model
from server.settings import default_cache_dir
from tests.support.awkward_texts import AWKWARD_TEXTS, TALKS
from tests.support.golden_tokens import write_golden

NAME = "demo_model_transformers"


def demo_golden(path: Path) -> dict[str, object]:
    """The ids of the awkward texts and of the rendered talks."""
    oracle = transformers.AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return {
        "ids": {name: oracle.encode(text, add_special_tokens=False) for name, text in AWKWARD_TEXTS.items()},
        "talks": [
            oracle.apply_chat_template(talk, add_generation_prompt=True, return_dict=False) for talk in TALKS
        ],
    }


def main() -> None:
    golden = demo_golden(fetch_demo_model(default_cache_dir()))
    write_golden(NAME, {"oracle": f"transformers {transformers.__version__}", **golden})


if __name__ == "__main__":
    main()
