"""`TokenizerParts`: what a tokenizer is made of, whichever kind of file it came from."""

from collections.abc import Mapping
from dataclasses import dataclass

import tokenizers


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerParts:
    """The parts that `Tokenizer` works with.

    `prefix_ids` and `suffix_ids` are put around text that is encoded with special tokens; None means
    that the backend's own post-processor knows. `special_tokens` are the names a chat template may
    use (`bos_token`, …); `chat_template` is None where the files bring none.
    """

    backend: tokenizers.Tokenizer
    prefix_ids: tuple[int, ...] | None
    suffix_ids: tuple[int, ...] = ()
    special_tokens: Mapping[str, str]
    eos_ids: frozenset[int]
    chat_template: str | None
