"""`TokenizerParts`: what a tokenizer is made of, whichever kind of file it came from."""

from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerParts:
    """The parts that `Tokenizer` works with.

    The backend's post-processor knows which tokens belong around a text. `special_tokens` are the
    names a chat template may use (`bos_token`, …); `chat_template` is None where the files bring none.
    """

    backend: tokenizers.Tokenizer
    special_tokens: Mapping[str, str]
    eos_ids: frozenset[int]
    chat_template: str | None
