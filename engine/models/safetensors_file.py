"""`SafetensorsFiles`: the tensors of a folder in Hugging Face format, in one file or several.

Tensors are views of mapped files: bytes are read when they are copied from. Pickled weights are
never opened.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from engine.errors import CheckpointError
from engine.kernels.cpu.packed import StoredRows

DTYPE_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
STORED_TYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}
PICKLE_PATTERNS = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


class SafetensorsFiles:
    """Open files, and which of them holds which tensor."""

    def __init__(self, files: Mapping[str, "_File"]) -> None:
        self._files = files

    @classmethod
    def open(cls, folder: Path) -> "SafetensorsFiles":
        """Open every file that `folder` needs. CheckpointError when one is missing, cut off or no safetensors."""
        index = folder / "model.safetensors.index.json"
        single = folder / "model.safetensors"
        if single.is_file():
            file = _File(single)
            return cls(dict.fromkeys(file.names, file))
        if index.is_file():
            return cls(_open_shards(folder, index))
        pickles = sorted(path.name for pattern in PICKLE_PATTERNS for path in folder.glob(pattern))
        if pickles:
            raise CheckpointError(
                f"{folder} has only pickled weights ({', '.join(pickles)}), which can run code when opened; "
                "convert them to model.safetensors"
            )
        raise CheckpointError(f"{folder} has neither model.safetensors nor model.safetensors.index.json")

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every tensor, by name."""
        return {name: file.shape(name) for name, file in self._files.items()}

    def num_bytes(self, name: str) -> int:
        """Bytes that the tensor takes in its file."""
        return self._files[name].num_bytes(name)

    def copy(self, name: str, destination: Tensor) -> None:
        """Copy the tensor into `destination`, of its shape and of any floating dtype."""
        destination.copy_(self._files[name].tensor(name))

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """The tensor's values."""
        values: npt.NDArray[np.float32] = self._files[name].tensor(name).float().numpy()
        return values

    def stored(self, name: str) -> StoredRows:
        """The tensor's rows as the file has them; float64 ones, which nothing packs, as float32."""
        tensor = self._files[name].tensor(name)
        if tensor.dtype not in STORED_TYPES:
            tensor = tensor.float()
        rows = tensor.contiguous().view(torch.uint8).numpy()
        return StoredRows(type_name=STORED_TYPES[tensor.dtype], stored=rows, row_order=None)


class _File:
    """One open safetensors file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors = _open_file(path)
        self.names = tuple(self._tensors.keys())

    def shape(self, name: str) -> tuple[int, ...]:
        return tuple(self._tensors.get_slice(name).get_shape())

    def num_bytes(self, name: str) -> int:
        dtype = self._tensors.get_slice(name).get_dtype()
        if dtype not in DTYPE_BYTES:
            raise CheckpointError(
                f"{self._path}: tensor {name} is of type {dtype}; supported are {', '.join(DTYPE_BYTES)}"
            )
        size = DTYPE_BYTES[dtype]
        for length in self.shape(name):
            size *= length
        return size

    def tensor(self, name: str) -> Tensor:
        tensor: Tensor = self._tensors.get_tensor(name)
        return tensor


def _open_file(path: Path) -> Any:  # the methods of an open file have no types
    try:
        return safe_open(path, framework="pt")
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a complete safetensors file: {error}") from error


def _open_shards(folder: Path, index: Path) -> dict[str, _File]:
    try:
        file_names = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        pairs = {str(name): str(file_name) for name, file_name in file_names.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{index} cannot be read as an index of safetensors files: {error}") from error
    files = {}
    for file_name in sorted(set(pairs.values())):
        if Path(file_name).name != file_name or not (folder / file_name).is_file():
            raise CheckpointError(f"{index} names {file_name}, which is not a file in {folder}")
        files[file_name] = _File(folder / file_name)
    for name, file_name in pairs.items():
        if name not in files[file_name].names:
            raise CheckpointError(f"{index} says that {name} is in {file_name}, which does not have it")
    return {name: files[file_name] for name, file_name in pairs.items()}
