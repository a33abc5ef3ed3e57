import json
import os
from pathlib import Path

import pytest

from engine.errors import CheckpointError
from engine.text.token_bytes import byte_characters
from engine.text.tokenizer import Tokenizer
from engine.text.tokenizer_conversion import CONVERTED_NAME, converted_tokenizer


@pytest.fixture
def old_folder(tmp_path: Path) -> Path:
    """A checkpoint of the time before tokenizer.json: vocab.json and merges.txt."""
    vocab = {character: byte for byte, character in enumerate(byte_characters())}
    vocab |= {"hi": 256, "<|endoftext|>": 257}
    (tmp_path / "vocab.json").write_text(json.dumps(vocab), "utf-8")
    (tmp_path / "merges.txt").write_text("#version: 0.2\nh i\n", "utf-8")
    (tmp_path / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}', "utf-8")
    return tmp_path


def test_a_tokenizer_of_the_old_kind_is_converted_and_kept_until_its_files_change(old_folder: Path) -> None:
    (old_folder / CONVERTED_NAME).write_text("of other files", "utf-8")
    os.utime(old_folder / CONVERTED_NAME, (0, 0))

    tokenizer = Tokenizer.load(old_folder)

    assert tokenizer.encode("hi ho") == [256, *b" ho"]
    assert converted_tokenizer(old_folder) == (old_folder / CONVERTED_NAME).read_text("utf-8")
    assert [file.name for file in old_folder.glob("tokenizer.*")] == [CONVERTED_NAME]


def test_what_was_converted_is_used_again(old_folder: Path) -> None:
    (old_folder / CONVERTED_NAME).write_text("kept", "utf-8")

    assert converted_tokenizer(old_folder) == "kept"


def test_files_that_cannot_be_converted_are_refused(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"no sentencepiece model")

    with pytest.raises(CheckpointError, match=r"cannot be converted: .*Put a tokenizer\.json there"):
        converted_tokenizer(tmp_path)


def test_a_folder_without_any_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"holds no tokenizer: it needs tokenizer\.json, or one of"):
        Tokenizer.load(tmp_path)
