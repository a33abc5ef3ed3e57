from pathlib import Path

from tokenizers import Tokenizer

from tests.support.tiny_tokenizer import EOS_ID, IM_END_ID, IM_START_ID, write_tiny_tokenizer


def test_a_byte_is_its_own_token_id(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    ids = tokenizer.encode("aé\n\x00🙂").ids

    assert ids == list("aé\n\x00🙂".encode())


def test_special_tokens_follow_the_bytes(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))

    ids = tokenizer.encode("<|im_start|>a<|im_end|><|eos|>").ids

    assert ids == [IM_START_ID, ord("a"), IM_END_ID, EOS_ID]
