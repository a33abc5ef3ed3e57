"""One tile of keys and values, attended by a tile of query rows: what both attention kernels share.

A softmax over all keys is kept as a running state of three: the largest score so far, the sum of e to
the power of the scores less that, and the sum of values so weighted. Tiles are taken in ascending order
of positions and are aligned to them, and a tile or row that sees nothing leaves the state as it is, bit
by bit, so a row's result does not depend on the rows beside it.
Source: Milakov and Gimelshein 2018, Online normalizer calculation for softmax (arXiv 1805.02867);
Dao 2023, FlashAttention-2 (arXiv 2307.08691).
"""

import triton
import triton.language as tl


@triton.jit
def slots_at(table, table_width, offsets, block_size: tl.constexpr):
    """Slots of `offsets` [n], counted from the first position of a table's first block.

    A table may be a whole ring too, whose first block is number 0: then an entry stands for all numbers
    that differ by the table's width, of which one is held.
    """
    block = tl.load(table + (offsets // block_size) % table_width).to(tl.int64)
    return block * block_size + offsets % block_size


@triton.jit
def start_state(rows: tl.constexpr, width: tl.constexpr):
    """(weighted values, largest score, sum) before any key was seen."""
    values = tl.zeros([rows, width], dtype=tl.float32)
    return values, tl.full([rows], float("-inf"), dtype=tl.float32), tl.zeros([rows], dtype=tl.float32)


@triton.jit
def attend_tile(
    query,  # [rows, width]
    weighted,
    largest,
    total,
    keys,
    values,
    key_scales,
    value_scales,
    places,  # [n] int64: where each key's vector begins in the cache
    is_seen,  # [rows, n] or [1, n]; looked at where `is_masked`
    score_scale,
    head_size: tl.constexpr,
    width: tl.constexpr,
    holds_codes: tl.constexpr,
    is_masked: tl.constexpr,
    precision: tl.constexpr,
):
    """The state after one more tile of n keys. Scores are in units of log2(e), for exp2 is the faster.

    What codes are worth is multiplied to scores and weights, which are fewer than the codes.
    """
    dims = tl.arange(0, width)
    key_places = keys + places[None, :] + dims[:, None]
    value_places = values + places[:, None] + dims[None, :]
    if width == head_size:
        key = tl.load(key_places)  # [width, n]
        value = tl.load(value_places)  # [n, width]
    else:
        key = tl.load(key_places, mask=dims[:, None] < head_size, other=0.0)
        value = tl.load(value_places, mask=dims[None, :] < head_size, other=0.0)
    scores = tl.dot(query, key.to(query.dtype), input_precision=precision) * score_scale  # [rows, n]
    if holds_codes:
        scores *= tl.load(key_scales + (places + head_size) // 4)[None, :]
    if is_masked:
        scores = tl.where(is_seen, scores, float("-inf"))
    new_largest = tl.maximum(largest, tl.max(scores, 1))
    shift = tl.where(new_largest == float("-inf"), 0.0, new_largest) if is_masked else new_largest
    weights = tl.exp2(scores - shift[:, None])
    shrinking = tl.exp2(largest - shift)
    new_total = total * shrinking + tl.sum(weights, 1)
    if holds_codes:
        weights *= tl.load(value_scales + (places + head_size) // 4)[None, :]
    weighted = tl.dot(
        weights.to(query.dtype),
        value.to(query.dtype),
        weighted * shrinking[:, None],
        input_precision=precision,
    )
    return weighted, new_largest, new_total
