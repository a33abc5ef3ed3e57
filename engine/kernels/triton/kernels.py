"""`TritonKernels`: the operations of `Ops` as kernels for a GPU, and what they ask of a batch.

**Tensors, not numbers.** What a kernel must know of a step it reads on the device: `row_bounds`,
`positions`, `slots`, `tables` and `base_positions`, of any integer type. Nothing waits for the device.
The host's `row_starts` choose the launches: chunks of one token are attended by `decode.py`, longer ones
by `prefill.py`. So a step may be recorded in a graph and replayed with other numbers in the same tensors, if

- all its chunks are of one token (`row_starts` 0, 1, 2 …), and
- `tables` keep their width M, whose M * B positions bound what a row may see.

The grid is then a matter of S, K, M and the window alone, and rows that need less of it end at once.
What a step needs besides is allocated when its first layer attends, once for all layers of a shape, so while
recording it comes from the graph's own memory.

**Tables** are rotated, or whole rings: position p lies in slot

    tables[s, ((p - bases[s]) // B) % M] * B + p % B

which for rotated tables is `GroupBatch`'s rule, and with bases of 0 that of a ring kept up to date in place.

**Padding.** A row whose slot is -1 only fills a batch up. Nothing is written for it, its attention is zeros,
and its position and table are not looked at, though both must be there.

**Company.** A row's result follows from its tokens, position and window, and from whether its chunk is of
one token; with `is_uniform` not from that either, for then every chunk is attended alike.

Importing this module imports triton, which comes with torch for CUDA and is not needed elsewhere.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from engine.batch import Batch, GroupBatch, LayerCache
from engine.kernels.cached import MAX_CODES, holds_codes
from engine.kernels.triton.block_sizes import (
    BlockSizes,
    decode_sizes,
    head_width,
    num_splits,
    power_of_two,
    prefill_sizes,
    split_tokens,
)
from engine.kernels.triton.decode import attend_splits, join_splits
from engine.kernels.triton.elementwise import gate_rows, norm_rows
from engine.kernels.triton.prefill import attend_runs
from engine.kernels.triton.rotation import rotate_and_write_rows

LOG2_E = math.log2(math.e)
ROTATED_HEADS = 8  # query heads that one program turns
NORM_NUMBERS = 1024  # rows shorter than this share a program
GATE_NUMBERS = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the splits of all rows of a step come to before they are joined."""

    weighted: Tensor  # [S, H, splits, D] float32
    largest: Tensor  # [S, H, splits]
    total: Tensor


class TritonStep:
    """A batch, its angles, and memory that all layers of the step share in turn."""

    def __init__(self, batch: Batch, cos: Tensor, sin: Tensor) -> None:
        self.batch = batch
        self.cos = cos
        self.sin = sin
        lengths = [stop - start for start, stop in zip(batch.row_starts, batch.row_starts[1:], strict=False)]
        self.has_decodes = 1 in lengths
        self.has_longer = any(length > 1 for length in lengths)
        self._parts: dict[tuple[int, ...], Parts] = {}

    def parts(self, num_heads: int, splits: int, head_size: int) -> Parts:
        """Room for the splits, the same for every layer of one shape."""
        shape = (self.batch.num_chunks, num_heads, splits, head_size)
        parts = self._parts.get(shape)
        if parts is None:
            new = self.batch.positions.new_empty
            parts = Parts(
                weighted=new(shape, dtype=torch.float32),
                largest=new(shape[:3], dtype=torch.float32),
                total=new(shape[:3], dtype=torch.float32),
            )
            self._parts[shape] = parts
        return parts


class TritonKernels:
    """The operations, for models whose sequences have at most `max_context` positions.

    `max_context` decides how long a split is where no window does, and must not change while sequences
    live on; None means that of the window, or of the shortest splits. `is_uniform` has every chunk attended by one kernel,
    so that even a token computed alone, in a chunk of its own, comes out as in a longer one. `decode` and
    `prefill` are block sizes to try in the place of our own.
    """

    def __init__(
        self,
        *,
        max_context: int | None = None,
        is_uniform: bool = False,
        decode: BlockSizes | None = None,
        prefill: BlockSizes | None = None,
    ) -> None:
        self._max_context = max_context
        self._is_uniform = is_uniform
        self._decode = decode
        self._prefill = prefill

    def prepare(self, batch: Batch, cos: Tensor, sin: Tensor) -> TritonStep:
        """The step as the other operations take it; launches nothing."""
        return TritonStep(batch, cos.contiguous(), sin.contiguous())

    def norm_residual(
        self, hidden: Tensor, residual: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        """(norm(hidden + residual) · weight, hidden + residual) over the last dimension."""
        size = hidden.shape[-1]
        normed = torch.empty(hidden.shape, dtype=hidden.dtype, device=hidden.device)
        total = hidden if residual is None else torch.empty_like(normed)
        heads = 1 if hidden.dim() == 2 else hidden.shape[1]
        num_rows = hidden.numel() // size
        if num_rows == 0:
            return normed, total
        rows = max(1, NORM_NUMBERS // power_of_two(size))
        norm_rows[(triton.cdiv(num_rows, rows),)](
            hidden, hidden if residual is None else residual, weight, normed, total,
            num_rows, heads, hidden.stride(0), hidden.stride(-2), size if residual is None else residual.stride(0),
            eps, size=size, width=power_of_two(size), rows=rows, has_residual=residual is not None,
            num_warps=8 if size > 2048 else 4,
        )  # fmt: skip
        return normed, total

    def silu_mul(self, gate_up: Tensor) -> Tensor:
        """silu(gate) · up of [T, 2 F], gate before up."""
        num_rows, size = len(gate_up), gate_up.shape[-1] // 2
        gated = gate_up.new_empty((num_rows, size))
        if num_rows:
            width = min(GATE_NUMBERS, power_of_two(size))
            gate_rows[(num_rows, triton.cdiv(size, width))](
                gate_up, gated, gate_up.stride(0), size, width=width, num_warps=4
            )
        return gated

    def rotate_and_write(
        self, query: Tensor, key: Tensor, value: Tensor, cache: LayerCache, prepared: object
    ) -> Tensor:
        """The rotated query [T, H, D], packed; keys and values are in their slots, in the cache's type, after it."""
        assert isinstance(prepared, TritonStep)
        assert query.stride(1) == key.stride(1) == value.stride(1) == query.shape[2]
        num_rows, num_heads, head_size = query.shape
        rotated = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        heads = min(ROTATED_HEADS, power_of_two(num_heads))
        rotate_and_write_rows[(num_rows, 1 + triton.cdiv(num_heads, heads))](
            query, key, value, prepared.cos, prepared.sin, prepared.batch.groups[cache.group].slots, rotated,
            cache.keys, cache.values, *_scales(cache), query.stride(0), key.stride(0), value.stride(0),
            cache.keys.stride(0), cache.keys.stride(1), num_heads, key.shape[1],
            head_size=head_size, half=power_of_two(head_size // 2), heads=heads,
            kv_heads=power_of_two(key.shape[1]), max_code=MAX_CODES.get(cache.keys.dtype, 0.0), num_warps=4,
        )  # fmt: skip
        return rotated

    def attend(self, query: Tensor, cache: LayerCache, prepared: object, window: int | None) -> Tensor:
        """[T, H, D] gives [T, H · D]."""
        assert isinstance(prepared, TritonStep)
        assert query.stride(1) == query.shape[2]
        output = torch.empty(query.shape, dtype=query.dtype, device=query.device)
        if prepared.has_decodes and not self._is_uniform:
            self._attend_decodes(query, cache, prepared, window, output)
        if prepared.has_longer or self._is_uniform:
            self._attend_longer(query, cache, prepared, window, output)
        return output.flatten(1)

    def _attend_decodes(
        self, query: Tensor, cache: LayerCache, step: TritonStep, window: int | None, output: Tensor
    ) -> None:
        batch, group = step.batch, step.batch.groups[cache.group]
        num_heads, kv_heads, head_size = query.shape[1], cache.keys.shape[1], query.shape[2]
        reach = group.tables.shape[1] * group.block_size
        visible = reach if window is None else min(window, reach)
        size = split_tokens(window or self._max_context or 1)
        splits = num_splits(visible, window is not None, size)
        parts = step.parts(num_heads, splits, head_size)
        width = head_width(head_size)
        sizes = self._decode or decode_sizes(num_heads // kv_heads, width, query.dtype)
        attend_splits[(batch.num_chunks, kv_heads, splits)](
            query, cache.keys, cache.values, *_scales(cache), *_places(batch, group), group.slots,
            parts.weighted, parts.largest, parts.total, *_strides(query, cache, group), window or 0,
            _score_scale(head_size), group=num_heads // kv_heads, head_size=head_size, block_size=group.block_size,
            rows=sizes.rows, width=width, num_keys=sizes.keys, split_tokens=size, has_window=window is not None,
            holds_codes=holds_codes(cache.keys.dtype), precision=_precision(query.dtype),
            num_warps=sizes.num_warps, num_stages=sizes.num_stages,
        )  # fmt: skip
        join_splits[(batch.num_chunks, num_heads)](
            parts.weighted, parts.largest, parts.total, output, batch.row_bounds, batch.positions, group.slots,
            splits, window or 0, head_size=head_size, width=width, split_tokens=size,
            has_window=window is not None, num_warps=1 if width <= 128 else 2,
        )  # fmt: skip

    def _attend_longer(
        self, query: Tensor, cache: LayerCache, step: TritonStep, window: int | None, output: Tensor
    ) -> None:
        batch, group = step.batch, step.batch.groups[cache.group]
        num_heads, kv_heads, head_size = query.shape[1], cache.keys.shape[1], query.shape[2]
        width = head_width(head_size)
        sizes = self._prefill or prefill_sizes(num_heads // kv_heads, width, query.dtype)
        runs = len(query) // (sizes.rows // (num_heads // kv_heads)) + batch.num_chunks
        attend_runs[(runs, kv_heads)](
            query, cache.keys, cache.values, *_scales(cache), *_places(batch, group), group.slots, output,
            batch.num_chunks, 1 if self._is_uniform else 2, *_strides(query, cache, group), window or 0,
            _score_scale(head_size), group=num_heads // kv_heads, head_size=head_size, block_size=group.block_size,
            rows=sizes.rows, width=width, num_keys=sizes.keys, has_window=window is not None,
            holds_codes=holds_codes(cache.keys.dtype), precision=_precision(query.dtype),
            num_warps=sizes.num_warps, num_stages=sizes.num_stages,
        )  # fmt: skip


def _scales(cache: LayerCache) -> Sequence[Tensor]:
    """The memory of keys and of values as float32, for what codes are worth lies among them."""
    if not holds_codes(cache.keys.dtype):
        return cache.keys, cache.values  # not looked at
    return cache.keys.view(torch.float32), cache.values.view(torch.float32)


def _places(batch: Batch, group: GroupBatch) -> Sequence[Tensor]:
    return group.tables, group.base_positions, batch.row_bounds, batch.positions


def _strides(query: Tensor, cache: LayerCache, group: GroupBatch) -> Sequence[int]:
    return query.stride(0), cache.keys.stride(0), cache.keys.stride(1), group.tables.shape[1]


def _score_scale(head_size: int) -> float:
    return LOG2_E / math.sqrt(head_size)


def _precision(dtype: torch.dtype) -> str:
    """Float32 is multiplied as such: it is asked for where rounding is to be seen apart."""
    return "ieee" if dtype == torch.float32 else "tf32"
