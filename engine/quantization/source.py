"""`QuantizedSource`: a checkpoint whose matrices are quantised as they are read, one at a time.

It stands between a safetensors folder and the loader. On native kernels the codes are packed as if a
GGUF file had had them; on the reference they are turned back into numbers, so that both compute with
the same weights. Norms and biases stay as they are.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.errors import CheckpointError, ConfigError
from engine.kernels.cpu.packed import StoredRows
from engine.models.weights import Through, WeightSource, as_it_is
from engine.quantization.groups import GROUP, INT4, INT8, GroupFormat, Groups

SLICE_ELEMENTS = 1 << 18  # float32 temporaries of this size stay in a core's cache
STORED_DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
# A table of embeddings is 8-bit in either format: it is looked up as well, and as the head it decides.
TABLES = ("model.embed_tokens.weight", "lm_head.weight")
FORMATS = {"int8": INT8, "int4": INT4}


def quantizing(name: str, path: Path) -> Through:
    """What a checkpoint at `path` is read through for a setting `quantization`; `none` reads it as it is.

    ConfigError for a GGUF file, which has its own types.
    """
    if name == "none":
        return as_it_is
    if not path.is_dir():
        raise ConfigError(
            f"quantization is {name!r}, but {path} is a GGUF file, whose tensors have types of their own and stay "
            "as they are; leave it out, or give the model's safetensors folder"
        )
    if name == "fp8":
        return as_it_is  # the projections round what they are given
    return lambda source: QuantizedSource.over(source, name)


class QuantizedSource:
    """A `WeightSource` whose matrices have the codes of one format."""

    def __init__(self, source: WeightSource, formats: Mapping[str, GroupFormat]) -> None:
        self._source = source
        self._formats = formats

    @classmethod
    def over(cls, source: WeightSource, name: str) -> "QuantizedSource":
        """Every matrix of `source` in format `name`. CheckpointError where rows are not whole groups."""
        formats = {}
        for tensor, shape in source.shapes().items():
            if len(shape) != 2:
                continue
            if shape[1] % GROUP:
                raise CheckpointError(
                    f"tensor {tensor} has rows of {shape[1]}; --quantization {name} needs multiples of {GROUP}, "
                    "leave it out"
                )
            formats[tensor] = INT8 if tensor in TABLES else FORMATS[name]
        return cls(source, formats)

    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Every tensor's shape."""
        return self._source.shapes()

    def num_bytes(self, name: str) -> int:
        """Its size in the file."""
        return self._source.num_bytes(name)

    def copy(self, name: str, destination: Tensor) -> None:
        """The values that its codes stand for, into `destination`."""
        if name not in self._formats:
            return self._source.copy(name, destination)
        return self._each_slice(name, lambda rows, groups: destination[rows].copy_(groups.values()))

    def floats(self, name: str) -> npt.NDArray[np.float32]:
        """A norm's or bias's values, which have no codes."""
        assert name not in self._formats
        return self._source.floats(name)

    def stored(self, name: str) -> StoredRows:
        """Its codes as a GGUF file would have them."""
        if name not in self._formats:
            return self._source.stored(name)
        layout = self._formats[name]
        out_size, in_size = self._source.shapes()[name]
        blocks = torch.empty(out_size, in_size // GROUP * layout.block_bytes, dtype=torch.uint8)
        self._each_slice(name, lambda rows, groups: blocks[rows].copy_(groups.blocks()))
        return StoredRows(type_name=layout.type_name, stored=blocks.numpy(), row_order=None)

    def _each_slice(self, name: str, take: Callable[[slice, Groups], object]) -> None:
        rows = self._source.stored(name)
        values = torch.from_numpy(rows.stored).view(STORED_DTYPES[rows.type_name])  # [out, in]
        step = max(1, SLICE_ELEMENTS // values.shape[1])
        for first in range(0, len(values), step):
            part = slice(first, first + step)
            groups = self._formats[name].quantise(values[part].float())
            if not groups.scales.isfinite().all():
                raise CheckpointError(
                    f"tensor {name} holds values that --quantization cannot hold: not finite"
                )
            take(part, groups)
