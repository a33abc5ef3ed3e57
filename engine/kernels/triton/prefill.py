"""Attention of chunks of several tokens, packed end to end, each over its own visible keys.

A program attends one key head of a run of consecutive queries: the query heads that share the key head
lie side by side in the rows of one tile. It walks the keys from the first that any of its rows sees to the
last. Tiles of keys that all rows see in full are not masked; keys that none sees are not read.
"""

import triton
import triton.language as tl

from engine.kernels.triton.attention_tile import attend_tile, slots_at, start_state


@triton.jit
def chunk_of_run(row_bounds, num_chunks, run, num_queries: tl.constexpr):
    """(chunk, which of its runs of `num_queries` queries) of run number `run` of the step.

    Chunk s has the numbers from row_bounds[s] // num_queries + s on: at least as many as it has runs, known
    without a sum over the chunks before it, and for the price of a few numbers that nothing is done for.
    """
    low, high = num_chunks * 0, num_chunks - 1
    while low < high:
        middle = (low + high + 1) // 2
        first_run = (tl.load(row_bounds + middle) // num_queries + middle).to(tl.int32)
        low = tl.where(first_run <= run, middle, low)
        high = tl.where(first_run <= run, high, middle - 1)
    return low, run - (tl.load(row_bounds + low) // num_queries + low).to(tl.int32)


@triton.jit
def tile_bounds(oldest, newest, window, num_keys: tl.constexpr, has_window: tl.constexpr):
    """(first key seen, full_from, full_to) for queries at positions [oldest, newest].

    Tiles that start in [full_from, full_to), which may be none, are seen by all queries and in full.
    """
    begin = oldest * 0
    full_from = begin
    if has_window:
        begin = tl.maximum(oldest - window + 1, 0)
        full_from = (tl.maximum(newest - window + 1, 0) + num_keys - 1) // num_keys * num_keys
        full_from = tl.minimum(full_from, newest + 1)
    return begin, full_from, tl.maximum(full_from, (oldest + 1) // num_keys * num_keys)


@triton.jit
def attend_range(
    query,
    weighted,
    largest,
    total,
    keys,
    values,
    key_scales,
    value_scales,
    table,
    base,
    kv_head,
    row_positions,  # [rows]
    tile_from,
    tile_to,
    begin,
    end,
    slot_stride,
    head_stride,
    table_width,
    window,
    score_scale,
    head_size: tl.constexpr,
    block_size: tl.constexpr,
    width: tl.constexpr,
    num_keys: tl.constexpr,
    has_window: tl.constexpr,
    holds_codes: tl.constexpr,
    is_masked: tl.constexpr,
    precision: tl.constexpr,
):
    """The state after the tiles that start in [tile_from, tile_to); only [begin, end] is in sight of any row."""
    for tile in tl.range(tile_from, tile_to, num_keys):
        at = tile + tl.arange(0, num_keys)
        held = tl.minimum(tl.maximum(at, begin), end) if is_masked else at
        places = slots_at(table, table_width, held - base, block_size) * slot_stride + kv_head * head_stride
        is_seen = at[None, :] <= row_positions[:, None]
        if has_window:
            is_seen = is_seen & (at[None, :] > row_positions[:, None] - window)
        weighted, largest, total = attend_tile(
            query, weighted, largest, total, keys, values, key_scales, value_scales, places, is_seen,
            score_scale, head_size, width, holds_codes, is_masked, precision,
        )  # fmt: skip
    return weighted, largest, total


@triton.jit(
    do_not_specialize=["num_chunks", "shortest", "table_width", "window"],
    do_not_specialize_on_alignment=["tables", "base_positions", "row_bounds", "positions", "slots"],
)
def attend_runs(
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
    output,  # [T, H, D]
    num_chunks,
    shortest,
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
    has_window: tl.constexpr,
    holds_codes: tl.constexpr,
    precision: tl.constexpr,
):
    """One run and key head of a grid [runs, K]: those that see most keys, the last ones, are begun first.

    Chunks of fewer than `shortest` tokens are left out.
    """
    num_queries: tl.constexpr = rows // group
    kv_head = tl.program_id(1)
    chunk, own_run = chunk_of_run(
        row_bounds, num_chunks, tl.num_programs(0) - 1 - tl.program_id(0), num_queries
    )
    chunk_row = tl.load(row_bounds + chunk)
    size = (tl.load(row_bounds + chunk + 1) - chunk_row).to(tl.int32)
    first_query = own_run * num_queries
    if size >= shortest and first_query < size:
        # A row without a slot only fills a batch up, and sees nothing.
        has_slot = tl.load(slots + chunk_row) >= 0
        start = tl.where(has_slot, tl.load(positions + chunk_row), 0).to(tl.int32)
        lanes, dims = tl.arange(0, rows), tl.arange(0, width)
        own_query = first_query + lanes // group
        own_head = kv_head * group + lanes % group
        is_real = (lanes < num_queries * group) & (own_query < size)
        own_row = chunk_row + tl.minimum(own_query, size - 1)
        is_loaded = is_real[:, None] & (dims < head_size)[None, :]
        query_at = query + own_row[:, None] * query_stride + own_head[:, None] * head_size + dims[None, :]
        turned = tl.load(query_at, mask=is_loaded, other=0.0)  # [rows, width]

        newest_query = start + tl.minimum(first_query + num_queries, size) - 1
        row_positions = start + tl.minimum(own_query, size - 1)
        begin, full_from, full_to = tile_bounds(
            start + first_query, newest_query, window, num_keys, has_window
        )
        stop = newest_query + 1
        if not has_slot:
            full_from, full_to, stop = begin * 0, begin * 0, begin * 0

        table = tables + chunk.to(tl.int64) * table_width
        base = tl.load(base_positions + chunk).to(tl.int32)
        weighted, largest, total = start_state(rows, width)
        if has_window:
            weighted, largest, total = attend_range(
                turned, weighted, largest, total, keys, values, key_scales, value_scales, table, base, kv_head,
                row_positions, begin // num_keys * num_keys, full_from, begin, newest_query,
                slot_stride, head_stride, table_width, window, score_scale,
                head_size, block_size, width, num_keys, has_window, holds_codes, True, precision,
            )  # fmt: skip
        weighted, largest, total = attend_range(
            turned, weighted, largest, total, keys, values, key_scales, value_scales, table, base, kv_head,
            row_positions, full_from, full_to, begin, newest_query,
            slot_stride, head_stride, table_width, window, score_scale,
            head_size, block_size, width, num_keys, has_window, holds_codes, False, precision,
        )  # fmt: skip
        weighted, largest, total = attend_range(
            turned, weighted, largest, total, keys, values, key_scales, value_scales, table, base, kv_head,
            row_positions, full_to, stop, begin, newest_query,
            slot_stride, head_stride, table_width, window, score_scale,
            head_size, block_size, width, num_keys, has_window, holds_codes, True, precision,
        )  # fmt: skip
        num_heads = tl.num_programs(1) * group
        place = output + (own_row[:, None] * num_heads + own_head[:, None]) * head_size + dims[None, :]
        attended = weighted / tl.where(total > 0, total, 1.0)[:, None]
        tl.store(place, attended.to(output.dtype.element_ty), mask=is_loaded)
