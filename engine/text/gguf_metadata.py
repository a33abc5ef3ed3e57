"""The key-value header of a GGUF file, read in one pass.

It knows the container only: neither tensors, which are the engine process's, nor what a key means.

Tried: the `gguf` package's reader makes several array views per string: 4 s and 160 MB for a
vocabulary of 49,152 tokens and its merges; this takes 0.07 s, and imports no numpy.
Source: the GGUF specification, version 3 (2 differs in nothing that is read here).
"""

import mmap
import struct
import sys
from array import array
from collections.abc import Mapping
from pathlib import Path

from engine.errors import CheckpointError

GgufValue = int | float | bool | str | list[int] | list[float] | list[bool] | list[str]
GgufMetadata = Mapping[str, GgufValue]

MAGIC = b"GGUF"
VERSIONS = (2, 3)
BOOL, STRING, ARRAY = 7, 8, 9
SCALAR_FORMATS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    BOOL: "?",
    10: "Q",
    11: "q",
    12: "d",
}
"""struct and array type codes of the scalar value types; `array` has no "?" and reads bytes instead."""


def read_gguf_metadata(path: Path) -> dict[str, GgufValue]:
    """Every key of the file's header with its value, in file order.

    Raises CheckpointError if the file is no GGUF of version 2 or 3, little-endian, or is cut short.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return _HeaderReader(content).read()
    except (OSError, ValueError, struct.error) as error:
        raise CheckpointError(f"{path} cannot be read as a GGUF file: {error}") from error


class _HeaderReader:
    def __init__(self, content: mmap.mmap) -> None:
        self._content = content
        self._offset = 0

    def read(self) -> dict[str, GgufValue]:
        if self._content[:4] != MAGIC:
            raise ValueError("it does not begin with the letters GGUF")
        self._offset = 4
        version = self._scalar("I")
        if version not in VERSIONS:
            raise ValueError(f"it is of version {version}; versions 2 and 3, little-endian, are supported")
        self._scalar("Q")  # number of tensors
        num_keys = int(self._scalar("Q"))
        metadata: dict[str, GgufValue] = {}
        for _ in range(num_keys):
            key = self._strings(1)[0]
            metadata[key] = self._value(int(self._scalar("I")))
        return metadata

    def _value(self, value_type: int) -> GgufValue:
        if value_type == STRING:
            return self._strings(1)[0]
        if value_type == ARRAY:
            item_type = int(self._scalar("I"))
            count = int(self._scalar("Q"))
            return self._strings(count) if item_type == STRING else self._numbers(item_type, count)
        return self._scalar(_format(value_type))

    def _scalar(self, type_code: str) -> int | float | bool:
        layout = struct.Struct("<" + type_code)
        value: int | float | bool = layout.unpack_from(self._content, self._offset)[0]
        self._offset += layout.size
        return value

    def _numbers(self, item_type: int, count: int) -> list[int] | list[float] | list[bool]:
        type_code = _format(item_type)
        numbers = array("B" if item_type == BOOL else type_code)
        numbers.frombytes(self._take(count * struct.calcsize("<" + type_code)))
        if sys.byteorder == "big":
            numbers.byteswap()
        return [bool(number) for number in numbers] if item_type == BOOL else numbers.tolist()

    def _strings(self, count: int) -> list[str]:
        length_at = struct.Struct("<Q").unpack_from
        content, offset, size = self._content, self._offset, len(self._content)
        strings: list[str] = []
        for _ in range(count):
            start = offset + 8
            offset = start + length_at(content, offset)[0]
            if offset > size:
                raise ValueError("it is cut short")
            strings.append(content[start:offset].decode())
        self._offset = offset
        return strings

    def _take(self, num_bytes: int) -> bytes:
        end = self._offset + num_bytes
        if end > len(self._content):
            raise ValueError("it is cut short")
        taken = self._content[self._offset : end]
        self._offset = end
        return taken


def _format(value_type: int) -> str:
    try:
        return SCALAR_FORMATS[value_type]
    except KeyError as error:
        raise ValueError(f"it holds a value of type {value_type}, which is unknown") from error
