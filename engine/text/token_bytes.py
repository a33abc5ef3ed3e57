"""The exact bytes that each token stands for, from which all text is decoded.

A character's bytes may be spread over several tokens, so text is made by joining bytes, never by
joining the strings of single tokens. It knows byte-level vocabularies, and sentencepiece ones with
byte fallback; how a token came to be chosen it does not know.
"""

import json
import re
from collections.abc import Iterator

import tokenizers

from engine.errors import CheckpointError

SPACE_MARK = "▁"
BYTE_TOKEN = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def byte_characters() -> list[str]:
    """The printable stand-in for each byte in byte-level vocabularies, in byte order.

    A printable byte stands for itself, the others for characters from U+0100 on: a space is "Ġ".
    Source: Radford et al. 2019, GPT-2.
    """
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    stand_ins = iter(range(0x100, 0x200))
    return [chr(byte if byte in printable else next(stand_ins)) for byte in range(256)]


class TokenBytes:
    """Token id -> bytes, worked out once per token.

    `strips_space` says whether the first space of a whole text is not part of it, since the encoder
    put it there.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, is_byte_level: bool, strips_space: bool) -> None:
        self.strips_space = strips_space
        self._backend = backend
        self._is_byte_level = is_byte_level
        self._byte_of = {character: byte for byte, character in enumerate(byte_characters())}
        added = backend.get_added_tokens_decoder() if is_byte_level else {}
        self._known = {token_id: token.content.encode() for token_id, token in added.items()}

    @classmethod
    def of_backend(cls, backend: tokenizers.Tokenizer) -> "TokenBytes":
        """Read the backend's decoder; CheckpointError if it is of a kind that is not supported."""
        steps = list(_decoder_steps(backend))
        kinds = {step["type"] for step in steps}
        if kinds == {"ByteLevel"}:
            return cls(backend, is_byte_level=True, strips_space=False)
        if not kinds & {"ByteFallback", "Metaspace"} or not all(map(_is_sentencepiece_step, steps)):
            raise CheckpointError(
                f"the tokenizer's decoder is {', '.join(sorted(map(str, kinds))) or 'missing'}; supported are "
                "ByteLevel, and sentencepiece ones made of Replace, ByteFallback, Fuse, Strip and Metaspace"
            )
        return cls(backend, is_byte_level=False, strips_space=any(map(_strips_space, steps)))

    def __getitem__(self, token_id: int) -> bytes:
        """The token's bytes; none for an id without a token, as padded vocabularies have them."""
        known = self._known.get(token_id)
        return self._work_out(token_id) if known is None else known

    def _work_out(self, token_id: int) -> bytes:
        text = self._backend.id_to_token(token_id) or ""
        found = self._from_byte_level(text) if self._is_byte_level else _from_sentencepiece(text)
        self._known[token_id] = found
        return found

    def _from_byte_level(self, text: str) -> bytes:
        try:
            return bytes([self._byte_of[character] for character in text])
        except KeyError:
            return text.encode()  # not spelled in the byte alphabet: a token that stands for itself


def _from_sentencepiece(text: str) -> bytes:
    if match := BYTE_TOKEN.fullmatch(text):
        return bytes.fromhex(match[1])
    return text.replace(SPACE_MARK, " ").encode()


def _decoder_steps(backend: tokenizers.Tokenizer) -> Iterator[dict[str, object]]:
    """The decoder's parts in order, sequences within it laid out flat."""
    if backend.decoder is None:
        return
    waiting = [json.loads(backend.decoder.__getstate__())]
    while waiting:
        step = waiting.pop(0)
        if step["type"] == "Sequence":
            waiting[:0] = step["decoders"]
        else:
            yield step


def _is_sentencepiece_step(step: dict[str, object]) -> bool:
    match step:
        case {"type": "ByteFallback" | "Fuse"}:
            return True
        case {"type": "Replace", "pattern": {"String": str(mark)}, "content": " "}:
            return mark == SPACE_MARK
        case {"type": "Strip", "content": " ", "start": 0 | 1, "stop": 0}:
            return True
        case {"type": "Metaspace", "replacement": str(mark)}:
            return mark == SPACE_MARK
        case _:
            return False


def _strips_space(step: dict[str, object]) -> bool:
    match step:
        case {"type": "Strip", "start": 1}:
            return True
        case {"type": "Metaspace", "prepend_scheme": "always" | "first"}:
            return True
        case _:
            return False
