"""The native kernels at every level that this machine and build have."""

import functools

import gguf
import pytest
import torch

from engine.kernels.cpu.library import library_path, load_library, supported_levels
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.cpu.packed import PackedWeights, StoredRows

PATH = library_path()
LEVELS = () if PATH is None else supported_levels(load_library(PATH))
needs_native = pytest.mark.skipif(PATH is None, reason="the kernels are not built")


@functools.cache
def native_kernels(level: str) -> NativeKernels:
    """One pool of two threads per level for all tests."""
    kernels = NativeKernels.open(2, level)
    assert kernels is not None
    return kernels


def packed_weights(
    kernels: NativeKernels, rows: "torch.Tensor", type_name: str, bias: torch.Tensor | None = None
) -> PackedWeights:
    """One tensor's blocks [out, bytes], packed."""
    elements, num_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[type_name]]
    packed = PackedWeights(
        kernels.library,
        rows.shape[1] // num_bytes * elements,
        (len(rows),),
        None if bias is None else bias.numpy(),
    )
    packed.pack(0, StoredRows(type_name=type_name, stored=rows.numpy(), row_order=None))
    return packed
