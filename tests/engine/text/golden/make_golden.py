"""Makes the golden files beside it, with llama.cpp as the oracle; run by hand, once per oracle version.

    python -m tests.engine.text.golden.make_golden DEMO_MODEL.gguf

needs `llama-cpp-python`, `tokenizers` and `gguf`. The vocabularies are trained on a few lines and the
awkward texts, without cutting them into words: so tokens reach across words, and a cut in the wrong
place changes the ids.
"""

import json
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import llama_cpp
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, trainers

from engine.text.pre_tokenization import PRE_TOKENIZATIONS
from tests.support.awkward_texts import AWKWARD_TEXTS
from tests.support.golden_tokens import write_golden
from tests.support.tiny_gguf import BYTE, CONTROL, NORMAL, UNKNOWN, USER_DEFINED, write_tokenizer_gguf

ORACLE = f"llama.cpp of llama-cpp-python {llama_cpp.__version__}"
UNTRAINED = ("special_inside", "special_alone", "user_defined", "unmerged", "byte_like")
"""Texts with tokens in them that must not come up a second time."""
LINES = [
    "A river that bends twice meets itself again; nobody told the river, and it's fine with that.",
    "In 1987 there were 1234 bridges, 567 of them wooden, and by 2031 there'll be 99999 or 100000.",
    "HE SAID THEY'RE LATE. She said we're not, they'd only left at 12:45, and I'm sure you've seen it.",
    "Der Fluß fließt über Österreich; l'été, la forêt brûle déjà; mañana será otro día.",
    "Река течёт медленно. 川はゆっくり流れる。河水慢慢地流。강은 천천히 흐른다. النهر يجري ببطء",
    "    for (int i = 0; i < 10; ++i) {\n\t\tsum += values[i]; // add it up\n    }\n\n",
    *[text for name, text in AWKWARD_TEXTS.items() if name not in UNTRAINED],
]
SPECIAL = {"<|endoftext|>": CONTROL, "<|im_start|>": CONTROL, "<|im_end|>": CONTROL, "<think>": USER_DEFINED}
UNMERGED = "Ġunmerged"


def train_byte_level() -> dict[str, object]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=1200, initial_alphabet=alphabet, max_token_length=12, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    vocab, merges = _trained(tokenizer)
    tokens = [*SPECIAL, *vocab, UNMERGED]
    types = [*SPECIAL.values(), *[NORMAL] * (len(tokens) - len(SPECIAL))]
    ids = {"bos_token_id": 0, "eos_token_id": 2}
    return {"model": "gpt2", "tokens": tokens, "token_type": types, "merges": merges, **ids}


def train_sentencepiece() -> dict[str, object]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    trainer = trainers.BpeTrainer(
        vocab_size=900, limit_alphabet=150, max_token_length=12, show_progress=False
    )
    tokenizer.train_from_iterator(LINES, trainer)
    vocab, _ = _trained(tokenizer)
    special = {"<unk>": UNKNOWN, "<s>": CONTROL, "</s>": CONTROL, **SPECIAL}
    byte_tokens = [f"<0x{byte:02X}>" for byte in range(256)]
    merged = [token for token in vocab if len(token) > 1]
    single = [token for token in vocab if len(token) == 1]
    tokens = [*special, *byte_tokens, *merged, *single]
    types = [*special.values(), *[BYTE] * 256, *[NORMAL] * len(vocab)]
    num_free = len(special) + 256
    scores = [0.0] * num_free + [-float(rank) for rank in range(len(vocab))]
    return {"model": "llama", "tokens": tokens, "token_type": types, "scores": scores}


def _trained(tokenizer: Tokenizer) -> tuple[list[str], list[str]]:
    model = json.loads(tokenizer.to_str())["model"]
    vocab = sorted(model["vocab"], key=model["vocab"].__getitem__)
    return vocab, [" ".join(pair) for pair in model["merges"]]


def oracle_ids(file: Path) -> dict[str, list[int]]:
    oracle = llama_cpp.Llama(str(file), vocab_only=True, verbose=False)
    return {
        name: oracle.tokenize(text.encode(), add_bos=False, special=True)
        for name, text in AWKWARD_TEXTS.items()
    }


def make_vocabulary(
    name: str, vocabulary: dict[str, object], variants: Mapping[str, dict[str, object]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ids = {
            variant: oracle_ids(write_tokenizer_gguf(Path(folder) / "tiny.gguf", vocabulary, **keys))
            for variant, keys in variants.items()
        }
    write_golden(name, {"oracle": ORACLE, "vocabulary": vocabulary, **ids})


def main() -> None:
    make_vocabulary("byte_level", train_byte_level(), {pre: {"pre": pre} for pre in PRE_TOKENIZATIONS})
    spaces = {"with_space_prefix": {}, "without_space_prefix": {"add_space_prefix": False}}
    make_vocabulary("sentencepiece", train_sentencepiece(), spaces)
    write_golden("demo_model", {"oracle": ORACLE, "ids": oracle_ids(Path(sys.argv[1]))})


if __name__ == "__main__":
    main()
