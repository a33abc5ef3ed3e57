from pathlib import Path

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from engine.errors import CheckpointError
from engine.text.gguf_tokenizer import load_gguf_tokenizer
from engine.text.pre_tokenization import PRE_TOKENIZATIONS
from engine.text.tokenizer import Tokenizer
from tests.engine.text.golden.make_demo_golden import demo_golden
from tests.support.awkward_texts import AWKWARD_TEXTS
from tests.support.golden_tokens import read_golden
from tests.support.tiny_gguf import write_tokenizer_gguf

BYTE_LEVEL = read_golden("byte_level")
SENTENCEPIECE = read_golden("sentencepiece")

NOT_LIKE_LLAMA_CPP = {"tekken": {"accents", "combining_marks"}}
"""llama.cpp approximates Tekken's pattern; ours is the original (see `pre_tokenization`)."""

NOT_LIKE_TRANSFORMERS = {
    # Its GGUF reader does not know that Llama 3 and Tekken take a whole piece that is a token.
    "llama-bpe": {"unmerged"},
    "tekken": {"unmerged"},
    # It gives a space to the first piece only, and none to one that begins with a space; sentencepiece
    # and llama.cpp give one to every piece.
    "sentencepiece": {
        "leading_space",
        "many_leading_spaces",
        "only_spaces",
        "special_inside",
        "user_defined",
    },
    # It does not know SmolLM's cut at each digit, which shows at fractions and Roman numerals.
    "demo_model": {"digits_mixed"},
}


def byte_level_gguf(folder: Path, **keys: object) -> Path:
    return write_tokenizer_gguf(folder / "tiny.gguf", BYTE_LEVEL["vocabulary"], **{"pre": "gpt-2", **keys})


def sentencepiece_gguf(folder: Path, **keys: object) -> Path:
    return write_tokenizer_gguf(folder / "tiny.gguf", SENTENCEPIECE["vocabulary"], **keys)


def encode_all(path: Path) -> dict[str, list[int]]:
    tokenizer = Tokenizer.load(path)
    return {name: tokenizer.encode(text, add_special_tokens=False) for name, text in AWKWARD_TEXTS.items()}


def transformers_ids(oracle: PreTrainedTokenizerBase) -> dict[str, list[int]]:
    return {name: oracle.encode(text, add_special_tokens=False) for name, text in AWKWARD_TEXTS.items()}


def differing(ours: dict[str, list[int]], theirs: dict[str, list[int]]) -> set[str]:
    return {name for name in AWKWARD_TEXTS if ours[name] != theirs[name]}


@pytest.mark.parametrize("pre", sorted(PRE_TOKENIZATIONS))
def test_a_byte_level_vocabulary_gives_the_ids_of_llama_cpp(pre: str, tmp_path: Path) -> None:
    ids = encode_all(byte_level_gguf(tmp_path, pre=pre))

    assert differing(ids, BYTE_LEVEL[pre]) == NOT_LIKE_LLAMA_CPP.get(pre, set())


@pytest.mark.parametrize("variant", ["with_space_prefix", "without_space_prefix"])
def test_a_sentencepiece_vocabulary_gives_the_ids_of_llama_cpp(variant: str, tmp_path: Path) -> None:
    ids = encode_all(sentencepiece_gguf(tmp_path, add_space_prefix=variant == "with_space_prefix"))

    assert differing(ids, SENTENCEPIECE[variant]) == set()


@pytest.mark.demo_model
def test_the_demo_model_gives_the_ids_of_llama_cpp(demo_model_path: Path) -> None:
    ids = encode_all(demo_model_path)

    assert differing(ids, read_golden("demo_model")["ids"]) == set()


@pytest.mark.parametrize("pre", ["gpt-2", "llama-bpe", "smaug-bpe", "qwen2", "tekken"])
def test_a_byte_level_vocabulary_gives_the_ids_of_transformers(pre: str, tmp_path: Path) -> None:
    path = byte_level_gguf(tmp_path, pre=pre)

    theirs = transformers_ids(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name))
    assert differing(encode_all(path), theirs) == NOT_LIKE_TRANSFORMERS.get(pre, set())


def test_a_sentencepiece_vocabulary_gives_the_ids_of_transformers(tmp_path: Path) -> None:
    path = sentencepiece_gguf(tmp_path)

    theirs = transformers_ids(AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name))
    assert differing(encode_all(path), theirs) == NOT_LIKE_TRANSFORMERS["sentencepiece"]


@pytest.mark.demo_model
def test_the_demo_model_gives_the_ids_of_transformers(demo_model_path: Path) -> None:
    ids = encode_all(demo_model_path)

    theirs = read_golden("demo_model_transformers")["ids"]
    assert differing(ids, theirs) == NOT_LIKE_TRANSFORMERS["demo_model"]


@pytest.mark.slow
@pytest.mark.demo_model
def test_what_is_recorded_of_transformers_is_what_it_gives(demo_model_path: Path) -> None:
    recorded = read_golden("demo_model_transformers")

    assert demo_golden(demo_model_path) == {name: recorded[name] for name in ("ids", "talks")}


def test_an_unknown_cut_is_refused_with_those_supported(tmp_path: Path) -> None:
    path = byte_level_gguf(tmp_path, pre="kimi-k2")

    with pytest.raises(CheckpointError, match=r"pre is 'kimi-k2'; supported are dbrx, .*smollm.*tekken"):
        load_gguf_tokenizer(path)


def test_a_file_that_names_no_cut_is_refused(tmp_path: Path) -> None:
    path = byte_level_gguf(tmp_path, pre=None)

    with pytest.raises(CheckpointError, match=r"tokenizer\.ggml\.pre is None"):
        load_gguf_tokenizer(path)


def test_an_unknown_model_is_refused_with_those_supported(tmp_path: Path) -> None:
    path = byte_level_gguf(tmp_path, model="rwkv")

    with pytest.raises(CheckpointError, match="'rwkv'; supported are 'gpt2' and 'llama'"):
        load_gguf_tokenizer(path)


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        pytest.param({"tokens": None}, "tokens is missing", id="no tokens"),
        pytest.param({"tokens": ["a", "b", "a"]}, "names a token twice", id="a token twice"),
        pytest.param({"merges": None}, "merges is missing", id="no merges"),
        pytest.param({"merges": ["ab"]}, "'ab', which is not two tokens", id="half a merge"),
        pytest.param({"merges": ["no such"]}, "do not fit together", id="a merge of unknown tokens"),
        pytest.param({"token_type": [1] * 9999}, "token_type does not fit", id="too many types"),
        pytest.param({"bos_token_id": 9999}, "bos_token is 9999, which is not", id="an id out of range"),
        pytest.param(
            {"add_bos_token": True, "bos_token_id": None}, "there is no bos_token_id", id="no token to add"
        ),
    ],
)
def test_a_vocabulary_that_does_not_fit_is_refused(
    keys: dict[str, object], complaint: str, tmp_path: Path
) -> None:
    path = byte_level_gguf(tmp_path, **keys)

    with pytest.raises(CheckpointError, match=complaint):
        load_gguf_tokenizer(path)


def test_a_sentencepiece_vocabulary_without_scores_is_refused(tmp_path: Path) -> None:
    path = sentencepiece_gguf(tmp_path, scores=None)

    with pytest.raises(CheckpointError, match="scores is missing"):
        load_gguf_tokenizer(path)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        pytest.param({"pre": "gpt-2"}, [], id="byte-level adds none unasked"),
        pytest.param({"pre": "llama-bpe"}, [0], id="Llama 3 adds it"),
        pytest.param({"pre": "llama-bpe", "add_bos_token": False}, [], id="unless told not to"),
        pytest.param({"pre": "gpt-2", "add_bos_token": True}, [0], id="or told to"),
    ],
)
def test_the_beginning_of_sequence_is_added_where_the_file_or_its_kind_says_so(
    keys: dict[str, object], expected: list[int], tmp_path: Path
) -> None:
    tokenizer = Tokenizer.load(byte_level_gguf(tmp_path, **keys))

    assert tokenizer.encode("") == expected


def test_sentencepiece_adds_the_beginning_of_sequence_unasked(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(sentencepiece_gguf(tmp_path))

    assert tokenizer.encode("a")[0] == 1


def test_the_end_of_sequence_is_added_where_the_file_says_so(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(byte_level_gguf(tmp_path, add_eos_token=True))

    assert tokenizer.encode("a")[-1] == 2
    assert tokenizer.encode("a", add_special_tokens=False)[-1] != 2


def test_an_unnamed_token_gets_a_name_that_no_text_has(tmp_path: Path) -> None:
    vocabulary = BYTE_LEVEL["vocabulary"]
    path = byte_level_gguf(tmp_path, tokens=[*vocabulary["tokens"], ""], token_type=None)

    tokenizer = Tokenizer.load(path)

    assert tokenizer.vocab_size == len(vocabulary["tokens"]) + 1


def test_a_user_defined_token_is_text_and_a_control_token_is_not(tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(byte_level_gguf(tmp_path))

    assert tokenizer.decode(tokenizer.encode("a<think>b<|im_start|>c")) == "a<think>bc"


def test_the_stated_ends_of_text_turn_and_message_end_a_sequence(tmp_path: Path) -> None:
    path = byte_level_gguf(tmp_path, eos_token_id=2, eot_token_id=0, eom_token_id=2)

    assert Tokenizer.load(path).eos_ids == {0, 2}
