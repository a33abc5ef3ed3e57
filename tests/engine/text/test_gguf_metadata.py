import struct
from pathlib import Path

import pytest
from gguf import GGUFReader, GGUFWriter

from engine.errors import CheckpointError
from engine.text.gguf_metadata import read_gguf_metadata
from tests.support.golden_tokens import read_golden
from tests.support.tiny_gguf import write_tokenizer_gguf


def write_gguf(path: Path) -> Path:
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("u8", 200)
    writer.add_int8("i8", -3)
    writer.add_uint16("u16", 60_000)
    writer.add_int16("i16", -30_000)
    writer.add_uint32("u32", 4_000_000_000)
    writer.add_int32("i32", -2_000_000_000)
    writer.add_uint64("u64", 1 << 63)
    writer.add_int64("i64", -(1 << 62))
    writer.add_float32("f32", 0.5)
    writer.add_float64("f64", 0.1)
    writer.add_bool("yes", True)
    writer.add_string("text", "zażółć 🙂")
    writer.add_array("texts", ["a", "", "漢字"])
    writer.add_array("integers", [1, -2, 3])
    writer.add_array("floats", [0.25, -1.5])
    writer.add_array("flags", [True, False, True])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def test_every_type_of_value_is_read(tmp_path: Path) -> None:
    metadata = read_gguf_metadata(write_gguf(tmp_path / "a.gguf"))

    assert metadata == {
        "general.architecture": "llama",
        "u8": 200,
        "i8": -3,
        "u16": 60_000,
        "i16": -30_000,
        "u32": 4_000_000_000,
        "i32": -2_000_000_000,
        "u64": 1 << 63,
        "i64": -(1 << 62),
        "f32": 0.5,
        "f64": 0.1,
        "yes": True,
        "text": "zażółć 🙂",
        "texts": ["a", "", "漢字"],
        "integers": [1, -2, 3],
        "floats": [0.25, -1.5],
        "flags": [True, False, True],
    }


def test_a_vocabulary_reads_as_with_the_gguf_package(tmp_path: Path) -> None:
    path = write_tokenizer_gguf(tmp_path / "a.gguf", read_golden("sentencepiece")["vocabulary"])

    metadata = read_gguf_metadata(path)

    theirs = GGUFReader(path).fields
    assert metadata == {
        name: field.contents() for name, field in theirs.items() if not name.startswith("GGUF.")
    }


@pytest.mark.parametrize("num_bytes", [0, 3, 20, 60, 200, -1])
def test_a_file_that_is_cut_short_is_refused(num_bytes: int, tmp_path: Path) -> None:
    content = write_gguf(tmp_path / "a.gguf").read_bytes().rstrip(b"\0")
    short = tmp_path / "short.gguf"
    short.write_bytes(content[:num_bytes])

    with pytest.raises(CheckpointError, match=r"short\.gguf cannot be read as a GGUF file"):
        read_gguf_metadata(short)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        pytest.param(b"PK\x03\x04" + bytes(60), "does not begin with the letters GGUF", id="another format"),
        pytest.param(b"GGUF" + struct.pack("<IQQ", 1, 0, 0), "version 1", id="an old version"),
        pytest.param(b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "little-endian", id="big-endian"),
        pytest.param(
            b"GGUF" + struct.pack("<IQQQ1sI", 3, 0, 1, 1, b"k", 77), "type 77", id="a value of unknown type"
        ),
        pytest.param(
            b"GGUF" + struct.pack("<IQQQ1sIIQ", 3, 0, 1, 1, b"k", 9, 8, 1 << 60),
            "cannot be read",
            id="endless list",
        ),
    ],
)
def test_a_file_of_another_kind_is_refused(content: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "a.gguf"
    path.write_bytes(content)

    with pytest.raises(CheckpointError, match=complaint):
        read_gguf_metadata(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        read_gguf_metadata(tmp_path / "none.gguf")
