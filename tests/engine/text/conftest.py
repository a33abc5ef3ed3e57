from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase


@pytest.fixture(scope="session")
def demo_oracle(demo_model_path: Path) -> PreTrainedTokenizerBase:
    """The demo model's tokenizer as transformers reads it, which takes it seconds."""
    return AutoTokenizer.from_pretrained(demo_model_path.parent, gguf_file=demo_model_path.name)
