from pathlib import Path

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, models, normalizers, pre_tokenizers

from engine.text.text_bound import TextBound
from engine.text.token_bytes import byte_characters
from engine.text.tokenizer import Tokenizer
from tests.support.golden_tokens import read_golden
from tests.support.tiny_gguf import write_tokenizer_gguf
from tests.support.tiny_tokenizer import write_tiny_tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"])) | st.text(
    alphabet="aé 가e\u0301\u1100\u1161<|eos>", max_size=40
)


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tokenizer]:
    folder: Path = tmp_path_factory.mktemp("bound")
    write_tiny_tokenizer(folder)
    paths = {"folder": folder}
    for name, keys in {"byte_level": {"pre": "qwen2"}, "sentencepiece": {}}.items():
        vocabulary = read_golden(name)["vocabulary"]
        paths[name] = write_tokenizer_gguf(folder / f"{name}.gguf", vocabulary, **keys)
    return {name: Tokenizer.load(path) for name, path in paths.items()}


def byte_backend(without: str = "") -> tokenizers.Tokenizer:
    vocabulary = {c: i for i, c in enumerate(byte_characters()) if c not in without}
    backend = tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    return backend


@pytest.mark.parametrize("name", ["folder", "byte_level", "sentencepiece"])
@given(text=TEXTS)
def test_a_text_never_becomes_fewer_tokens(loaded: dict[str, Tokenizer], name: str, text: str) -> None:
    tokenizer = loaded[name]

    assert tokenizer.least_tokens(text) <= len(tokenizer.encode(text, add_special_tokens=False))


@pytest.mark.parametrize("name", ["folder", "byte_level", "sentencepiece"])
def test_a_long_text_is_known_to_be_long(loaded: dict[str, Tokenizer], name: str) -> None:
    assert loaded[name].least_tokens("word " * 10_000) > 500


@given(text=TEXTS)
def test_composing_a_text_shrinks_it_at_most_threefold(text: str) -> None:
    backend = byte_backend()
    backend.normalizer = normalizers.NFC()
    bound = TextBound.of_backend(backend)

    assert bound.bytes_per_token == 2 * 3  # a byte's stand-in has two bytes itself
    assert bound.least_tokens(text) <= len(backend.encode(text).ids)


def test_a_byte_without_a_token_does_not_count() -> None:
    bound = TextBound.of_backend(byte_backend(without=byte_characters()[4]))

    assert bound.lost == b"\x04"
    assert bound.least_tokens("\x04" * 1000) == 0
    assert bound.least_tokens("\x04a" * 1000) == 500


def unknown_characters_merge() -> tokenizers.Tokenizer:
    return tokenizers.Tokenizer(models.BPE(vocab={"<unk>": 0}, merges=[], unk_token="<unk>", fuse_unk=True))


def words_are_cut_out() -> tokenizers.Tokenizer:
    backend = byte_backend()
    cut = pre_tokenizers.Split(" ", "removed")
    backend.pre_tokenizer = pre_tokenizers.Sequence([cut, pre_tokenizers.ByteLevel(use_regex=False)])
    return backend


def ends_are_stripped() -> tokenizers.Tokenizer:
    backend = byte_backend()
    backend.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Strip()])
    return backend


def a_token_swallows_spaces() -> tokenizers.Tokenizer:
    backend = byte_backend()
    backend.add_special_tokens([tokenizers.AddedToken("<mask>", lstrip=True)])
    return backend


def composing_meets_missing_bytes() -> tokenizers.Tokenizer:
    backend = byte_backend(without=byte_characters()[0xC3])
    backend.normalizer = normalizers.NFC()
    return backend


@pytest.mark.parametrize(
    "make",
    [
        unknown_characters_merge,
        words_are_cut_out,
        ends_are_stripped,
        a_token_swallows_spaces,
        composing_meets_missing_bytes,
    ],
)
def test_where_text_may_be_lost_nothing_is_certain(make) -> None:
    bound = TextBound.of_backend(make())

    assert bound.bytes_per_token is None
    assert bound.least_tokens("x" * 100_000) == 0
