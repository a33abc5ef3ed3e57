"""`TextBound`: how few tokens a text can become, so that one that cannot fit is known before it is encoded.

It trusts only tokenizers that lose nothing of a text but bytes that it knows of: where one may drop
or merge other characters, nothing is certain.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import tokenizers

from engine.text.token_bytes import byte_characters

NFC_SHRINKAGE = 3
"""How many times longer in UTF-8 a text may be than its composed form. Source: Unicode Annex 15, section 9."""
UTF8_BYTES = frozenset({*range(0xC0), *range(0xC2, 0xF5)})


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBound:
    """A token stands for at most `bytes_per_token` bytes of UTF-8 (None: nobody knows); `lost` are no token's."""

    bytes_per_token: int | None
    lost: bytes = b""

    @classmethod
    def of_backend(cls, backend: tokenizers.Tokenizer) -> "TextBound":
        """Read the parts of `backend` that text passes before it is tokens."""
        steps = [*_steps(backend.normalizer), *_steps(backend.pre_tokenizer)]
        added = backend.get_added_tokens_decoder().values()
        unknown = _unknown_bytes(backend, steps)
        is_composed = any(step["type"] == "NFC" for step in steps)
        is_certain = (
            unknown is not None
            and not (is_composed and unknown)
            and all(map(_keeps_everything, steps))
            and not any(token.lstrip or token.rstrip for token in added)
        )
        if not is_certain:
            return cls(bytes_per_token=None)
        longest = max(len(token.encode()) for token in backend.get_vocab(with_added_tokens=True))
        return cls(bytes_per_token=longest * (NFC_SHRINKAGE if is_composed else 1), lost=unknown or b"")

    def least_tokens(self, text: str) -> int:
        """Fewer tokens than this the text never becomes; 0 where nothing is certain."""
        if self.bytes_per_token is None:
            return 0
        kept = text.encode("utf-8", "surrogatepass").translate(None, self.lost)
        return -(-len(kept) // self.bytes_per_token)


def _unknown_bytes(backend: tokenizers.Tokenizer, steps: list[dict[str, object]]) -> bytes | None:
    """Bytes of text that are no token and vanish by themselves; None where more may vanish with them."""
    if any(step["type"] == "ByteLevel" for step in steps):
        spellings = byte_characters()
        return bytes(byte for byte in sorted(UTF8_BYTES) if backend.token_to_id(spellings[byte]) is None)
    has_every_byte = all(backend.token_to_id(f"<0x{byte:02X}>") is not None for byte in range(256))
    return b"" if has_every_byte and getattr(backend.model, "byte_fallback", False) else None


def _keeps_everything(step: dict[str, object]) -> bool:
    match step:
        case {"type": "NFC" | "Prepend" | "ByteLevel" | "Metaspace" | "Digits"}:
            return True
        case {"type": "Replace", "pattern": {"String": " "}, "content": str(mark)}:
            return bool(mark)
        case {"type": "Split", "behavior": str(behavior)}:
            return behavior != "Removed"
        case _:
            return False


def _steps(part: Any) -> Iterator[dict[str, object]]:  # Any: of the library, which states no types
    """The steps of a normalizer or pre-tokenizer in order, sequences within it laid out flat."""
    waiting = [] if part is None else [json.loads(part.__getstate__())]
    while waiting:
        step = waiting.pop(0)
        if step["type"] == "Sequence":
            waiting[:0] = step.get("normalizers") or step.get("pretokenizers") or []
        else:
            yield step
