from dataclasses import FrozenInstanceError

import pytest
import tokenizers
from tokenizers import models

from engine.text.tokenizer_parts import TokenizerParts


def test_parts_do_not_change_once_they_are_put_together() -> None:
    parts = TokenizerParts(
        backend=tokenizers.Tokenizer(models.BPE()),
        special_tokens={},
        eos_ids=frozenset(),
        chat_template=None,
    )

    with pytest.raises(FrozenInstanceError):
        parts.eos_ids = frozenset({1})
