"""`Prompt`: one prompt as the answer shows it, and the making of prompts out of text or token ids."""

import codecs
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from engine import RequestError
from server.schemas.common import MAX_INT


class Vocabulary(Protocol):
    """What is asked of a tokenizer here."""

    @property
    def special_ids(self) -> Collection[int]:
        """Ids of the tokens that are no text."""

    def find(self, token: str) -> int | None:
        """The id of the token that is spelled so."""

    def token_bytes(self, token_id: int) -> bytes:
        """The exact bytes of one token."""

    def encode(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        """Token ids of `text`."""

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        """The text of a whole run of tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """One prompt: its ids, and where its text is to be echoed that text and the place of each token in it.

    `opening` are the bytes of the first token, which no log-probability tells. `num_left` tokens fit
    behind the prompt.
    """

    token_ids: tuple[int, ...]
    text: str = ""
    text_offsets: tuple[int, ...] = field(default=(), repr=False)
    opening: bytes = b""
    num_left: int = MAX_INT


def echoed(
    token_ids: Sequence[int], text: str | None, vocabulary: Vocabulary, *, skips_special: bool
) -> Prompt:
    """A prompt that the answer repeats; `text` None means the one that its ids spell."""
    shown = vocabulary.decode(token_ids, skip_special_tokens=skips_special) if text is None else text
    return Prompt(
        token_ids=tuple(token_ids),
        text=shown,
        text_offsets=_offsets(token_ids, shown, vocabulary),
        opening=vocabulary.token_bytes(token_ids[0]) if token_ids else b"",
    )


def truncated(token_ids: Sequence[int], limit: int | None) -> tuple[int, ...]:
    """The last `limit` ids; all of them where there is no limit."""
    return tuple(token_ids if limit is None else token_ids[-limit:])


def _offsets(token_ids: Sequence[int], text: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """Where in `text` each token begins. A space that only the encoder put in front has no place there.

    A special token has a place but no length, unless the text spells it.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    starts, here = [], 0
    for token_id in token_ids:
        starts.append(here)
        spelled = vocabulary.token_bytes(token_id)
        if token_id not in vocabulary.special_ids or text.startswith(
            spelled.decode("utf-8", "replace"), here
        ):
            here += len(decoder.decode(spelled))
    surplus = max(0, here - len(text))
    return tuple(min(max(0, start - surplus), len(text)) for start in starts)


@dataclass(frozen=True, slots=True, kw_only=True)
class InfillTokens:
    """How a model was trained to fill a gap: what stands before each part, and whether the suffix is first."""

    prefix: str
    suffix: str
    middle: str | None
    starts_with_suffix: bool = False


INFILLS = (
    InfillTokens(prefix="<|fim_prefix|>", suffix="<|fim_suffix|>", middle="<|fim_middle|>"),
    InfillTokens(prefix="<fim_prefix>", suffix="<fim_suffix>", middle="<fim_middle>"),
    InfillTokens(prefix="<fim-prefix>", suffix="<fim-suffix>", middle="<fim-middle>"),
    InfillTokens(prefix="<｜fim▁begin｜>", suffix="<｜fim▁hole｜>", middle="<｜fim▁end｜>"),
    InfillTokens(prefix="▁<PRE>", suffix="▁<SUF>", middle="▁<MID>"),
    InfillTokens(prefix="[PREFIX]", suffix="[SUFFIX]", middle=None, starts_with_suffix=True),
)
"""Source: Bavarian et al. 2022, fill-in-the-middle; the spellings are those of the models' vocabularies."""


def infilled(before: Sequence[int], after: str, vocabulary: Vocabulary) -> tuple[int, ...]:
    """The prompt that asks for what stands between `before` and `after`.

    RequestError if the model's vocabulary has no tokens for that.
    """
    tail = vocabulary.encode(after, add_special_tokens=False)
    for infill in INFILLS:
        prefix, suffix = vocabulary.find(infill.prefix), vocabulary.find(infill.suffix)
        middle = () if infill.middle is None else (vocabulary.find(infill.middle),)
        if prefix is None or suffix is None or None in middle:
            continue
        ends = tuple(token_id for token_id in middle if token_id is not None)
        if infill.starts_with_suffix:
            return (suffix, *tail, prefix, *before, *ends)
        return (prefix, *before, suffix, *tail, *ends)
    raise RequestError(
        "'suffix' is not supported by this model: its vocabulary has no fill-in-the-middle tokens", "suffix"
    )
