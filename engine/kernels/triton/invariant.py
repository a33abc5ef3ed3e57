"""A matrix product whose every number is summed up in one order, however many rows are computed with it.

A library picks another kernel, or splits its sums, where the number of rows is another; then a row's last
bits depend on its company. Here the tile is fixed by the weight's shape alone: a program owns a tile of the
result and adds up all of K, from first to last, in float32. No sum is split among programs.
Source of the idea: He 2025, Defeating nondeterminism in LLM inference (Thinking Machines Lab).
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS = 64  # of a tile, for one row as for thousands: another shape would be another instruction
DEPTH = 64
WIDE = 8192  # outputs from which on wider tiles still give every multiprocessor one


@triton.jit(do_not_specialize=["num_rows"])
def multiply(
    hidden,  # [T, in]
    weight,  # [out, in]
    bias,  # [out]
    output,  # [T, out]
    num_rows,
    hidden_stride,
    weight_stride,
    out_size: tl.constexpr,
    in_size: tl.constexpr,
    rows: tl.constexpr,
    columns: tl.constexpr,
    depth: tl.constexpr,
    has_bias: tl.constexpr,
    precision: tl.constexpr,
):
    """One tile of the result: program (i, j) of a grid [columns, rows], neighbours with the same weights."""
    own_rows = tl.program_id(1) * rows + tl.arange(0, rows)
    own_columns = tl.program_id(0) * columns + tl.arange(0, columns)
    places = tl.arange(0, depth)
    is_row, is_column = own_rows < num_rows, own_columns < out_size
    left = hidden + own_rows.to(tl.int64)[:, None] * hidden_stride + places[None, :]
    right = weight + own_columns.to(tl.int64)[None, :] * weight_stride + places[:, None]
    total = tl.zeros([rows, columns], dtype=tl.float32)
    for first in tl.range(0, in_size, depth):
        is_inside = first + places < in_size
        a = tl.load(left + first, mask=is_row[:, None] & is_inside[None, :], other=0.0)
        b = tl.load(right + first, mask=is_inside[:, None] & is_column[None, :], other=0.0)
        total = tl.dot(a, b, total, input_precision=precision)
    if has_bias:
        total += tl.load(bias + own_columns, mask=is_column, other=0.0).to(tl.float32)[None, :]
    place = output + own_rows.to(tl.int64)[:, None] * out_size + own_columns[None, :]
    tl.store(place, total.to(output.dtype.element_ty), mask=is_row[:, None] & is_column[None, :])


def invariant_linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden · weightᵀ + bias, [T, in], [out, in] and [out] to [T, out]; a row's result is its own alone."""
    out_size, in_size = weight.shape
    hidden = hidden if hidden.stride(-1) == 1 else hidden.contiguous()
    output = torch.empty((len(hidden), out_size), dtype=hidden.dtype, device=hidden.device)
    if len(hidden) == 0:
        return output
    columns = 64 if out_size >= WIDE else 32
    multiply[(triton.cdiv(out_size, columns), triton.cdiv(len(hidden), ROWS))](
        hidden, weight, weight if bias is None else bias, output, len(hidden), hidden.stride(0), weight.stride(0),
        out_size=out_size, in_size=in_size, rows=ROWS, columns=columns, depth=DEPTH, has_bias=bias is not None,
        precision="ieee" if hidden.dtype == torch.float32 else "tf32", num_warps=4,
        num_stages=2 if hidden.dtype == torch.float32 else 4,
    )  # fmt: skip
    return output
