"""The norm of the residual stream and the gate of the feed-forward layer, each in one pass over memory.

Both round where the reference rounds, so that they differ from it in the order of sums alone.
"""

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["num_rows"])
def norm_rows(
    hidden,
    residual,
    weight,
    normed,
    total,
    num_rows,
    heads,  # rows lie in tokens of this many
    token_stride,
    head_stride,
    residual_stride,
    eps,
    size: tl.constexpr,
    width: tl.constexpr,
    rows: tl.constexpr,
    has_residual: tl.constexpr,
):
    """`rows` rows of `size` numbers. Without a residual the sum is the input, and is not written."""
    row = tl.program_id(0) * rows + tl.arange(0, rows).to(tl.int64)
    dims = tl.arange(0, width)
    is_real = (row < num_rows)[:, None] & (dims < size)[None, :]
    at = row[:, None] * size + dims[None, :]
    read_at = (row // heads * token_stride + row % heads * head_stride)[:, None] + dims[None, :]
    kind = normed.dtype.element_ty
    summed = tl.load(hidden + read_at, mask=is_real, other=0.0).to(tl.float32)
    if has_residual:
        kept_at = row[:, None] * residual_stride + dims[None, :]
        kept = tl.load(residual + kept_at, mask=is_real, other=0.0).to(tl.float32)
        rounded = (summed + kept).to(kind)
        tl.store(total + at, rounded, mask=is_real)
        summed = rounded.to(tl.float32)
    mean_square = tl.sum(summed * summed, 1) / size
    scaled = (summed * (1.0 / tl.sqrt(mean_square + eps))[:, None]).to(kind).to(tl.float32)
    factor = tl.load(weight + dims, mask=dims < size, other=0.0).to(tl.float32)
    tl.store(normed + at, (scaled * factor[None, :]).to(kind), mask=is_real)


@triton.jit
def gate_rows(gate_up, gated, row_stride, size, width: tl.constexpr):
    """silu(gate) · up of `width` numbers of one row: program (row, part) of a grid."""
    row = tl.program_id(0).to(tl.int64)
    dims = tl.program_id(1) * width + tl.arange(0, width)
    kind = gated.dtype.element_ty
    gate = tl.load(gate_up + row * row_stride + dims, mask=dims < size, other=0.0).to(tl.float32)
    up = tl.load(gate_up + row * row_stride + size + dims, mask=dims < size, other=0.0).to(tl.float32)
    opened = (gate / (1.0 + tl.exp(-gate))).to(kind).to(tl.float32)
    tl.store(gated + row * size + dims, (opened * up).to(kind), mask=dims < size)
