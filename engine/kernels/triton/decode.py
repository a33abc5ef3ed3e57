"""Attention of chunks of one token, with the keys of each shared out among programs.

A program attends the query heads that share one key head, packed into the rows of one tile, over one
*split*: a fixed number of positions, counted from position 0. So how a row's keys are summed up follows
from its position and window alone, not from its company. A second kernel joins a row's splits in
ascending order. Splits that a row does not have end at once, which is why the same grid serves any
lengths, as a recorded graph must.
Source: Dao et al. 2023, Flash-Decoding, for the splits; here their size is fixed, not their number.
"""

import triton
import triton.language as tl

from engine.kernels.triton.attention_tile import attend_tile, slots_at, start_state


@triton.jit
def decode_row(row_bounds, positions, slots, chunk):
    """(row, its position, whether there is anything to compute) of a chunk.

    Nothing is of a chunk of several tokens, and of a row without a slot, which only fills a batch up.
    """
    row = tl.load(row_bounds + chunk)
    is_alone = tl.load(row_bounds + chunk + 1) == row + 1
    last = tl.load(positions + row).to(tl.int32)
    return row, last, is_alone, tl.load(slots + row) >= 0


@triton.jit
def first_seen(position, window, has_window: tl.constexpr):
    """The oldest position that a query at `position` sees."""
    if has_window:
        return tl.maximum(position - window + 1, 0)
    return position * 0


@triton.jit(
    do_not_specialize=["table_width", "window"],
    do_not_specialize_on_alignment=["tables", "base_positions", "row_bounds", "positions", "slots"],
)
def attend_splits(
    query,
    keys,
    values,
    key_scales,
    value_scales,
    tables,
    base_positions,
    row_bounds,
    positions,
    slots,
    weighted_parts,  # [S, H, splits, D] float32
    largest_parts,  # [S, H, splits] float32
    total_parts,  # the same
    query_stride,
    slot_stride,
    head_stride,
    table_width,
    window,
    score_scale,
    group: tl.constexpr,
    head_size: tl.constexpr,
    block_size: tl.constexpr,
    rows: tl.constexpr,
    width: tl.constexpr,
    num_keys: tl.constexpr,
    split_tokens: tl.constexpr,
    has_window: tl.constexpr,
    holds_codes: tl.constexpr,
    precision: tl.constexpr,
):
    """One chunk, key head and split: program (s, k, i) of a grid [S, K, splits]."""
    chunk, kv_head, split = tl.program_id(0), tl.program_id(1), tl.program_id(2)
    row, last, is_alone, has_slot = decode_row(row_bounds, positions, slots, chunk)
    first = first_seen(last, window, has_window)
    start = (first // split_tokens + split) * split_tokens
    if is_alone and has_slot and start <= last:
        begin = tl.maximum(first, start)
        end = tl.minimum(last, start + split_tokens - 1)
        heads, dims = tl.arange(0, rows), tl.arange(0, width)
        own_head = kv_head * group + heads
        query_at = query + row * query_stride + own_head[:, None] * head_size + dims[None, :]
        is_real = (heads < group)[:, None] & (dims < head_size)[None, :]
        turned = tl.load(query_at, mask=is_real, other=0.0)  # [rows, width]
        table = tables + chunk.to(tl.int64) * table_width
        base = tl.load(base_positions + chunk).to(tl.int32)
        weighted, largest, total = start_state(rows, width)
        for tile in tl.range(begin // num_keys * num_keys, end + 1, num_keys):
            at = tile + tl.arange(0, num_keys)
            # What is out of sight reads a key that is in sight: no slot is read that was not written.
            held = tl.minimum(tl.maximum(at, begin), end)
            places = (
                slots_at(table, table_width, held - base, block_size) * slot_stride + kv_head * head_stride
            )
            is_seen = ((at >= begin) & (at <= end))[None, :]
            weighted, largest, total = attend_tile(
                turned, weighted, largest, total, keys, values, key_scales, value_scales, places, is_seen,
                score_scale, head_size, width, holds_codes, True, precision,
            )  # fmt: skip
        num_heads = tl.num_programs(1) * group
        part = (chunk.to(tl.int64) * num_heads + own_head) * tl.num_programs(2) + split
        tl.store(weighted_parts + part[:, None] * head_size + dims[None, :], weighted, mask=is_real)
        tl.store(largest_parts + part, largest, mask=heads < group)
        tl.store(total_parts + part, total, mask=heads < group)


@triton.jit(
    do_not_specialize=["num_splits", "window"],
    do_not_specialize_on_alignment=["row_bounds", "positions", "slots"],
)
def join_splits(
    weighted_parts,
    largest_parts,
    total_parts,
    output,  # [T, H, D]
    row_bounds,
    positions,
    slots,
    num_splits,
    window,
    head_size: tl.constexpr,
    width: tl.constexpr,
    split_tokens: tl.constexpr,
    has_window: tl.constexpr,
):
    """One chunk and query head: program (s, h) of a grid [S, H]. A row without a slot gives zeros."""
    chunk, head, num_heads = tl.program_id(0), tl.program_id(1), tl.num_programs(1)
    row, last, is_alone, has_slot = decode_row(row_bounds, positions, slots, chunk)
    if is_alone:
        dims = tl.arange(0, width)
        first = first_seen(last, window, has_window)
        count = tl.where(has_slot, last // split_tokens - first // split_tokens + 1, 0)
        part = (chunk.to(tl.int64) * num_heads + head) * num_splits
        weighted = tl.zeros([width], dtype=tl.float32)
        largest = tl.full([1], float("-inf"), dtype=tl.float32)
        total = tl.zeros([1], dtype=tl.float32)
        for split in tl.range(0, count):
            own_largest = tl.load(largest_parts + part + split + tl.arange(0, 1))
            new_largest = tl.maximum(largest, own_largest)
            shrinking, weight = tl.exp2(largest - new_largest), tl.exp2(own_largest - new_largest)
            own = tl.load(
                weighted_parts + (part + split) * head_size + dims, mask=dims < head_size, other=0.0
            )
            weighted = weighted * shrinking + own * weight
            total = total * shrinking + tl.load(total_parts + part + split + tl.arange(0, 1)) * weight
            largest = new_largest
        attended = tl.where(has_slot, weighted / tl.where(total > 0, total, 1.0), 0.0)
        place = output + (row * num_heads + head) * head_size + dims
        tl.store(place, attended.to(output.dtype.element_ty), mask=dims < head_size)
