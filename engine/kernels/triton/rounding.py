"""Rows of activations as 8-bit floating numbers, in one pass: `kernels/rounded.py:round_rows` for a GPU."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from engine.kernels.rounded import CODE, LEAST_WORTH, MAX_CODE
from engine.kernels.triton.block_sizes import power_of_two
from engine.kernels.triton.rotation import nearest_e4m3

MAX_WIDTH = 1 << 15
"""Numbers of a row that one program holds at once."""


@triton.jit
def round_each(values, codes, worth, row_stride, most, least, size: tl.constexpr, width: tl.constexpr):
    """A row: its largest magnitude, then its codes. A grid [rows]."""
    row = tl.program_id(0).to(tl.int64)
    places = tl.arange(0, width)
    is_real = places < size
    row_values = tl.load(values + row * row_stride + places, mask=is_real, other=0.0).to(tl.float32)
    own = tl.maximum(tl.max(tl.abs(row_values), 0) / most, least)
    scaled = tl.minimum(tl.maximum(row_values / own, -most), most)
    tl.store(codes + row * size + places, nearest_e4m3(scaled).to(codes.dtype.element_ty), mask=is_real)
    tl.store(worth + row + tl.arange(0, 1), own + tl.zeros([1], dtype=tl.float32))


def round_rows(values: Tensor) -> tuple[Tensor, Tensor]:
    """[T, in] in codes [T, in], and their worth [T, 1] float32; rows of at most `MAX_WIDTH` numbers."""
    num_rows, size = values.shape
    assert size <= MAX_WIDTH
    values = values if values.stride(-1) == 1 else values.contiguous()
    codes = torch.empty((num_rows, size), dtype=CODE, device=values.device)
    worth = torch.empty((num_rows, 1), dtype=torch.float32, device=values.device)
    if num_rows:
        round_each[(num_rows,)](
            values, codes, worth, values.stride(0), MAX_CODE, LEAST_WORTH, size=size, width=power_of_two(size),
            num_warps=8 if size > 2048 else 4,
        )  # fmt: skip
    return codes, worth
