"""How text is cut into pieces before byte pairs are merged, by the names that GGUF files use for it.

A GGUF file only names its cut, in `tokenizer.ggml.pre`. A name that is not in the table is refused,
since a wrong cut gives wrong ids without a sign.

Sources: the patterns are those of the models' own tokenizer.json files (GPT-2, StarCoder, Llama 3,
Qwen2, Tekken); "default" is llama.cpp's. For Tekken llama.cpp has an approximation that differs on
combining marks and on capitals outside ASCII; ours is the original.
"""

from dataclasses import dataclass

import tokenizers
from tokenizers import pre_tokenizers

from engine.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class PreTokenization:
    """Each pattern's matches become pieces, and so does what lies between them.

    `ignores_merges` takes a piece that is a token whole, merges or not; `adds_bos` holds where the
    file does not say.
    """

    patterns: tuple[str, ...]
    ignores_merges: bool = False
    adds_bos: bool = False

    @classmethod
    def named(cls, name: object) -> "PreTokenization":
        """The cut that `tokenizer.ggml.pre` names; CheckpointError listing all if it is not known."""
        if not isinstance(name, str) or name not in PRE_TOKENIZATIONS:
            known = ", ".join(sorted(PRE_TOKENIZATIONS))
            raise CheckpointError(f"tokenizer.ggml.pre is {name!r}; supported are {known}")
        return PRE_TOKENIZATIONS[name]

    def to_backend(self) -> pre_tokenizers.PreTokenizer:
        """The cut, then each piece spelled in the byte alphabet."""
        splits = [pre_tokenizers.Split(tokenizers.Regex(pattern), "isolated") for pattern in self.patterns]
        to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        return pre_tokenizers.Sequence([*splits, to_bytes])


def _words_and(digits: str) -> str:
    """The pattern that Llama 3 and Qwen2 share but for their runs of digits."""
    return (
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|" + digits + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_TEKKEN_WORDS = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_LLAMA3_WORDS = _words_and(r"\p{N}{1,3}")

_DEFAULT = PreTokenization(patterns=(r"[\p{P}\$\+<=>\^~\|]+", _GPT2_WORDS, r"\p{N}+", r"[0-9][0-9][0-9]"))
_GPT2 = PreTokenization(patterns=(_GPT2_WORDS,))
_STARCODER = PreTokenization(patterns=(r"\p{N}", _GPT2_WORDS))
_LLAMA3 = PreTokenization(patterns=(_LLAMA3_WORDS,), ignores_merges=True, adds_bos=True)
_LLAMA3_MERGING = PreTokenization(patterns=(_LLAMA3_WORDS,))
_QWEN2 = PreTokenization(patterns=(_words_and(r"\p{N}"),))
_TEKKEN = PreTokenization(patterns=(_TEKKEN_WORDS,), ignores_merges=True, adds_bos=True)

PRE_TOKENIZATIONS = {
    "default": _DEFAULT,
    "gpt-2": _GPT2,
    "mpt": _GPT2,
    "olmo": _GPT2,
    "smollm": _STARCODER,
    "starcoder": _STARCODER,
    "refact": _STARCODER,
    "minerva-7b": _STARCODER,
    "llama3": _LLAMA3,
    "llama-v3": _LLAMA3,
    "llama-bpe": _LLAMA3,
    "falcon3": _LLAMA3,
    "pixtral": _LLAMA3,
    "smaug-bpe": _LLAMA3_MERGING,
    "dbrx": _LLAMA3_MERGING,
    "qwen2": _QWEN2,
    "stablelm2": _QWEN2,
    "megrez": _QWEN2,
    "deepseek-r1-qwen": _QWEN2,
    "tekken": _TEKKEN,
}
