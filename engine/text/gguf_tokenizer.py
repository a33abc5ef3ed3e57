"""A tokenizer from the metadata of a GGUF file: byte-level BPE ("gpt2") and sentencepiece ("llama").

A GGUF file states no normalizer, so none is applied, as in llama.cpp: text that is not in Unicode's
composed form (NFC) may give other ids than the tokenizer.json of a Qwen model does.

Source: the keys of the GGUF specification, with llama.cpp's values where one is absent.
"""

from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path

import tokenizers
from tokenizers import decoders, models, normalizers, processors

from engine.errors import CheckpointError
from engine.text.gguf_metadata import GgufMetadata, read_gguf_metadata
from engine.text.pre_tokenization import PreTokenization
from engine.text.token_bytes import SPACE_MARK
from engine.text.tokenizer_parts import TokenizerParts

NAMED_TOKENS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "pad_token": "padding_token_id",
}
SENTENCEPIECE_IDS = {"unk_token": 0, "bos_token": 1, "eos_token": 2}
"""Where sentencepiece puts them, for files that do not say."""
ENDS = ("eos_token_id", "eot_token_id", "eom_token_id")
"""What ends a sequence: the end of a text, of a turn, of a message."""


class TokenType(IntEnum):
    """Those values of `tokenizer.ggml.token_type` that make a token more than an entry of the list."""

    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4


def load_gguf_tokenizer(path: Path) -> TokenizerParts:
    """The tokenizer that the file's metadata describes.

    Raises CheckpointError, naming what is supported, for one that cannot be built faithfully.
    """
    try:
        return _to_parts(_Vocabulary(read_gguf_metadata(path)))
    except CheckpointError as error:
        raise CheckpointError(f"the tokenizer of {path} cannot be used: {error.message}") from error


def _to_parts(vocabulary: "_Vocabulary") -> TokenizerParts:
    metadata = vocabulary.metadata
    match metadata.get("tokenizer.ggml.model"):
        case "gpt2":
            cut = PreTokenization.named(metadata.get("tokenizer.ggml.pre"))
            backend = _byte_level(vocabulary, cut)
            named_ids, adds_bos = vocabulary.named_ids({}), cut.adds_bos
        case "llama":
            backend = _sentencepiece(vocabulary)
            named_ids, adds_bos = vocabulary.named_ids(SENTENCEPIECE_IDS), True
        case other:
            raise CheckpointError(f"tokenizer.ggml.model is {other!r}; supported are 'gpt2' and 'llama'")
    controls = vocabulary.of_types(TokenType.CONTROL, TokenType.UNKNOWN)
    backend.add_special_tokens([_added_token(token, is_special=True) for token in controls])
    defined = vocabulary.of_types(TokenType.USER_DEFINED)
    backend.add_tokens([_added_token(token, is_special=False) for token in defined])
    backend.post_processor = _around_text(metadata, named_ids, adds_bos)
    template = metadata.get("tokenizer.chat_template")
    return TokenizerParts(
        backend=backend,
        special_tokens={name: vocabulary.tokens[index] for name, index in named_ids.items()},
        eos_ids=frozenset(
            value for key in ENDS if isinstance(value := metadata.get(f"tokenizer.ggml.{key}"), int)
        ),
        chat_template=template if isinstance(template, str) else None,
    )


class _Vocabulary:
    """The token list of one file, checked."""

    def __init__(self, metadata: GgufMetadata) -> None:
        self.metadata = metadata
        self.tokens = [token or f"[EMPTY_{index}]" for index, token in enumerate(self.strings("tokens"))]
        self.ids = {token: index for index, token in enumerate(self.tokens)}
        if len(self.ids) != len(self.tokens):
            raise CheckpointError("tokenizer.ggml.tokens names a token twice")

    def strings(self, key: str) -> list[str]:
        values = self.metadata.get(f"tokenizer.ggml.{key}")
        if not isinstance(values, list):
            raise CheckpointError(f"tokenizer.ggml.{key} is missing")
        return [value for value in values if isinstance(value, str)]

    def scores(self) -> list[float]:
        values = self.metadata.get("tokenizer.ggml.scores")
        if not isinstance(values, list) or len(values) != len(self.tokens):
            raise CheckpointError("tokenizer.ggml.scores is missing, or not as long as the token list")
        return [float(value) for value in values]

    def of_types(self, *wanted: TokenType) -> list[str]:
        """The tokens of these types; none where the file states no types."""
        types = self.metadata.get("tokenizer.ggml.token_type", [])
        if not isinstance(types, list) or len(types) > len(self.tokens):
            raise CheckpointError("tokenizer.ggml.token_type does not fit the token list")
        return [token for token, its_type in zip(self.tokens, types, strict=False) if its_type in wanted]

    def named_ids(self, defaults: Mapping[str, int]) -> dict[str, int]:
        """Ids of the tokens with a role, as far as they are known."""
        named = dict(defaults)
        for name, key in NAMED_TOKENS.items():
            value = self.metadata.get(f"tokenizer.ggml.{key}")
            if isinstance(value, int):
                named[name] = value
        for name, index in named.items():
            if not 0 <= index < len(self.tokens):
                raise CheckpointError(
                    f"{name} is {index}, which is not in the list of {len(self.tokens)} tokens"
                )
        return named


def _byte_level(vocabulary: _Vocabulary, cut: PreTokenization) -> tokenizers.Tokenizer:
    merges = [_split_merge(merge) for merge in vocabulary.strings("merges")]
    backend = _bpe(vocabulary, merges, ignore_merges=cut.ignores_merges)
    backend.pre_tokenizer = cut.to_backend()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(vocabulary: _Vocabulary) -> tokenizers.Tokenizer:
    """Sentencepiece's BPE: spaces are marks, and a piece of text between special tokens gets one in front.

    What is no token falls back to its bytes.
    """
    adds_space = bool(vocabulary.metadata.get("tokenizer.ggml.add_space_prefix", True))
    backend = _bpe(vocabulary, _scored_merges(vocabulary), fuse_unk=True, byte_fallback=True)
    mark_spaces = normalizers.Replace(" ", SPACE_MARK)
    backend.normalizer = (
        normalizers.Sequence([normalizers.Prepend(SPACE_MARK), mark_spaces]) if adds_space else mark_spaces
    )
    to_text = [decoders.Replace(SPACE_MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*to_text, decoders.Strip(" ", 1, 0)] if adds_space else to_text)
    return backend


def _scored_merges(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    """The merges that scores imply: any two tokens that make a third, the best-scored result first.

    Source: sentencepiece merges whatever neighbours give the highest score. Where two ways of making
    one token compete, the longer left part goes first, as in transformers' conversion.
    """
    ids = vocabulary.ids
    ranked = [
        (-score, -cut, token[:cut], token[cut:])
        for token, score in zip(vocabulary.tokens, vocabulary.scores(), strict=True)
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    ranked.sort(key=lambda merge: merge[:2])
    return [(left, right) for _, _, left, right in ranked]


def _bpe(vocabulary: _Vocabulary, merges: list[tuple[str, str]], **options: bool) -> tokenizers.Tokenizer:
    try:
        return tokenizers.Tokenizer(models.BPE(vocab=vocabulary.ids, merges=merges, **options))
    except Exception as error:  # the library raises nothing narrower
        raise CheckpointError(f"tokens and merges do not fit together: {error}") from error


def _split_merge(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise CheckpointError(f"tokenizer.ggml.merges holds {merge!r}, which is not two tokens")
    return left, right


def _added_token(content: str, *, is_special: bool) -> tokenizers.AddedToken:
    return tokenizers.AddedToken(content, normalized=False, special=is_special)


def _around_text(
    metadata: GgufMetadata, named_ids: Mapping[str, int], adds_bos: bool
) -> processors.TemplateProcessing:
    """The tokens that a text is put between; `adds_bos` holds where the file does not say."""
    is_added = {
        "bos": bool(metadata.get("tokenizer.ggml.add_bos_token", adds_bos)),
        "eos": bool(metadata.get("tokenizer.ggml.add_eos_token", False)),
    }
    ends = [end for end in is_added if is_added[end]]
    for end in ends:
        if f"{end}_token" not in named_ids:
            raise CheckpointError(f"tokenizer.ggml.add_{end}_token is set, but there is no {end}_token_id")
    order = [piece for piece in ("bos", "$A", "eos") if piece == "$A" or piece in ends]
    return processors.TemplateProcessing(
        single=order, special_tokens=[(end, named_ids[f"{end}_token"]) for end in ends]
    )
