"""One row of logits: which token is drawn. And one entry of a row: how it is edited beforehand.

The stages are those of the sampler in plain torch, which is the reference: temperature, top-k, top-p, min-p,
and the first token in vocabulary order whose cumulative probability exceeds the row's uniform number.
Nothing is sorted. Each stage keeps the scores from some score on; which one is found by halving the range
of *keys*, integers in the order of the scores, and counting or weighing what a half would keep. That is
done over the few candidates that can matter, put aside in one pass, or over the row where they are many.
A row is the work of one program, its sums run in one order, so its company changes nothing.
"""

import triton
import triton.language as tl

ALL = tl.constexpr(0x7FFFFFFF)  # the key that keeps every token
SLACK = tl.constexpr(0.999)  # for rounding, where candidates are told from what cannot matter


@triton.jit
def uniform_of(seed, choice, position):
    """A number in [0, 1) with 53 random bits, that of `engine/execution/philox.py`, lane 0.

    Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox4x32-10).
    """
    c0, c1 = position.to(tl.uint32), choice.to(tl.uint32)
    c2, c3 = c0 ^ c0, c0 ^ c0
    key0, key1 = (seed & 0xFFFFFFFF).to(tl.uint32), ((seed >> 32) & 0xFFFFFFFF).to(tl.uint32)
    for _ in tl.static_range(10):
        first = c0.to(tl.uint64) * 0xD2511F53
        second = c2.to(tl.uint64) * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (second >> 32).to(tl.uint32) ^ c1 ^ key0,
            second.to(tl.uint32),
            (first >> 32).to(tl.uint32) ^ c3 ^ key1,
            first.to(tl.uint32),
        )
        key0 += 0x9E3779B9
        key1 += 0xBB67AE85
    bits = (c0 >> 5).to(tl.int64) * 67108864 + (c1 >> 6).to(tl.int64)
    return bits.to(tl.float64) * (1.0 / 9007199254740992.0)


@triton.jit(
    do_not_specialize=["number"], do_not_specialize_on_alignment=["seeds", "choices", "positions", "uniforms"]
)
def fill_uniforms(seeds, choices, positions, uniforms, number, width: tl.constexpr):
    """The uniform numbers [number] of draws whose tokens will stand at `positions`."""
    rows = tl.program_id(0) * width + tl.arange(0, width)
    is_real = rows < number
    seed = tl.load(seeds + rows, mask=is_real, other=0)
    choice = tl.load(choices + rows, mask=is_real, other=0)
    position = tl.load(positions + rows, mask=is_real, other=0)
    tl.store(uniforms + rows, uniform_of(seed, choice, position), mask=is_real)


@triton.jit
def key_of(score):
    """Scores are 0 at most; the larger one has the smaller key."""
    return (-score).to(tl.int32, bitcast=True) & ALL


@triton.jit
def scores_at(logits, at, size, largest, temperature):
    """Scores of logits less the row's largest, divided by its temperature; behind the row minus infinity."""
    logit = tl.load(logits + at, mask=at < size, other=float("-inf"))
    return (logit - largest) / temperature


@triton.jit
def find_largest(logits, size, tile: tl.constexpr):
    """(the largest of every tile-th logit [tile], the first token that has the largest of all).

    What is no number counts as minus infinity.
    """
    lanes = tl.arange(0, tile)
    best = tl.full([tile], float("-inf"), dtype=tl.float32)
    best_at = lanes
    for start in tl.range(0, size, tile):
        logit = tl.load(logits + start + lanes, mask=start + lanes < size, other=float("-inf"))
        best_at = tl.where(logit > best, start + lanes, best_at)
        best = tl.where(logit > best, logit, best)
    is_largest = best == tl.max(best, 0)
    return best, tl.min(tl.where(is_largest, best_at, size - 1), 0)


@triton.jit
def weigh(logits, size, largest, temperature, last_key, tile: tl.constexpr):
    """The sum of e to the power of the scores whose key is `last_key` at most."""
    total = tl.zeros([tile], dtype=tl.float64)
    for start in tl.range(0, size, tile):
        at = start + tl.arange(0, tile)
        score = (tl.load(logits + at, mask=at < size, other=float("-inf")) - largest) / temperature
        key = (-score).to(tl.int32, bitcast=True) & ALL
        total += tl.where(key <= last_key, tl.exp(score), 0.0).to(tl.float64)
    return tl.sum(total, 0)


@triton.jit
def key_of_few(keys, worth, wanted):
    """The least key up to which `keys` [tile] are `worth` [tile] as much as `wanted` together; all if none is."""
    found = tl.max(keys, 0) * 0 + ALL
    for step in tl.range(0, 31):
        trial = found - (1 << (30 - step))
        found = tl.where(tl.sum(tl.where(keys <= trial, worth, 0), 0) >= wanted, trial, found)
    return found


@triton.jit
def key_of_many(
    logits, size, largest, temperature, last_key, wanted, weighs: tl.constexpr, tile: tl.constexpr
):
    """The same of scores with keys to `last_key`, of which there are more than fit into a tile."""
    found = last_key * 0 + ALL
    for step in tl.range(0, 31):
        trial = found - (1 << (30 - step))
        least = tl.minimum(trial, last_key)
        total = tl.zeros([tile], dtype=tl.float64)
        for start in tl.range(0, size, tile):
            at = start + tl.arange(0, tile)
            score = (tl.load(logits + at, mask=at < size, other=float("-inf")) - largest) / temperature
            worth = tl.exp(score) if weighs else (at < size).to(tl.float32)
            total += tl.where((-score).to(tl.int32, bitcast=True) & ALL <= least, worth, 0.0).to(tl.float64)
        found = tl.where(tl.sum(total, 0) >= wanted, trial, found)
    return found


@triton.jit
def key_of_best(
    logits, size, largest, temperature, last_key, wanted, weighs: tl.constexpr, tile: tl.constexpr
):
    """The least key up to which the scores with keys to `last_key` count, or weigh, `wanted` or more."""
    if size > tile:
        found = key_of_many(logits, size, largest, temperature, last_key, wanted, weighs, tile)
    else:
        score = scores_at(logits, tl.arange(0, tile), size, largest, temperature)
        is_kept = (key_of(score) <= last_key) & (tl.arange(0, tile) < size)
        worth = tl.exp(score).to(tl.float64) if weighs else is_kept.to(tl.float64)
        found = key_of_few(key_of(score), tl.where(is_kept, worth, 0.0), wanted)
    return found


@triton.jit
def put_aside(logits, size, largest, temperature, last_key, aside, room, tile: tl.constexpr):
    """How many logits have a key of `last_key` at most; as many as there is `room` for are in `aside`."""
    count = size * 0
    for start in tl.range(0, size, tile):
        at = start + tl.arange(0, tile)
        logit = tl.load(logits + at, mask=at < size, other=float("-inf"))
        is_kept = ((key_of((logit - largest) / temperature) <= last_key) & (at < size)).to(tl.int32)
        place = count + tl.cumsum(is_kept, 0) - is_kept
        tl.store(aside + place, logit, mask=(is_kept > 0) & (place < room))
        count += tl.sum(is_kept, 0)
    tl.debug_barrier()  # what one thread put aside, others read
    return count


@triton.jit
def bound_of_candidates(logits, size, best, largest, temperature, top_k, top_p, by_min_p, tile: tl.constexpr):
    """A key beyond which no token can matter to top-k and top-p, found without sorting the row.

    The k-th largest of the largest of every tile-th logit is no larger than that of all. And those that all
    weigh less than an equal share of what top-p leaves out do not make it up together.
    """
    bound = size * 0 + ALL
    if (top_k > 0) & (top_k <= tile):
        keys = key_of((best - largest) / temperature)
        bound = key_of_few(keys, tl.full([tile], 1, dtype=tl.int32), top_k)
    elif (top_k == 0) & (top_p < 1.0):
        share = (1.0 - top_p) * weigh(logits, size, largest, temperature, bound, tile) / size * SLACK
        bound = tl.where(share > 1e-37, key_of(tl.log(tl.maximum(share, 1e-37).to(tl.float32))), bound)
    return tl.where(top_p < 1.0, bound, tl.minimum(bound, by_min_p))


@triton.jit
def last_key_of(
    logits, size, best, largest, temperature, top_k, top_p, min_p, aside, room, tile: tl.constexpr
):
    """The last key that top-k, top-p and min-p all keep."""
    by_min_p = key_of(tl.log(tl.maximum(min_p, 1e-37).to(tl.float32)))
    by_min_p = tl.where(min_p > 0.0, by_min_p, ALL)
    kept = bound_of_candidates(logits, size, best, largest, temperature, top_k, top_p, by_min_p, tile)
    count = put_aside(logits, size, largest, temperature, kept, aside, room, tile)
    source, number = logits, size
    if count <= room:
        source, number = aside, count
    if top_k > 0:
        kept = tl.minimum(kept, key_of_best(source, number, largest, temperature, kept, top_k, False, tile))
    if top_p < 1.0:
        if top_k > 0:
            total = weigh(source, number, largest, temperature, kept, tile)
        else:
            total = weigh(logits, size, largest, temperature, kept * 0 + ALL, tile)
        wanted = top_p * total
        kept = tl.minimum(kept, key_of_best(source, number, largest, temperature, kept, wanted, True, tile))
    return tl.minimum(kept, by_min_p)


@triton.jit
def token_at(logits, size, largest, temperature, last_key, uniform, likeliest, tile: tl.constexpr):
    """The first token of those kept whose cumulative weight exceeds uniform * the weight of all."""
    total = weigh(logits, size, largest, temperature, last_key, tile)
    below = (total.to(tl.int64, bitcast=True) - 1).to(tl.float64, bitcast=True)
    target = tl.minimum(uniform * total, below)
    lanes = tl.arange(0, tile)
    before = total * 0.0
    token, last = size * 0 - 1, likeliest.to(tl.int32)
    for start in tl.range(0, size, tile):
        score = (
            tl.load(logits + start + lanes, mask=start + lanes < size, other=float("-inf")) - largest
        ) / temperature
        key = (-score).to(tl.int32, bitcast=True) & ALL
        weight = tl.where(key <= last_key, tl.exp(score), 0.0).to(tl.float64)
        own = tl.sum(weight, 0)
        if (token < 0) & (own > 0.0):
            passes = (before + tl.cumsum(weight, 0) > target) & (weight > 0.0)
            first = tl.min(tl.where(passes, start + lanes, size), 0)
            token = tl.where(first < size, first, token)
            last = tl.max(tl.where(weight > 0.0, start + lanes, 0), 0)
        before += own
    token = tl.where(token < 0, last, token)  # rounding left the target a hair above the sum
    return tl.where(total > 0.0, token, likeliest)


@triton.jit(
    do_not_specialize=["row_stride", "size", "room"],
    do_not_specialize_on_alignment=["uniforms", "temperatures", "top_ks", "top_ps", "min_ps", "token_ids"],
)
def draw_rows(
    logits,  # [R, V] float32
    uniforms,  # [R] float64
    temperatures,  # [R], 0 for greedy
    top_ks,  # [R], 0 for all
    top_ps,  # [R]
    min_ps,  # [R]
    token_ids,  # [R] int64
    asides,  # [R, room] float32
    row_stride,
    size,
    room,
    tile: tl.constexpr,
    is_greedy: tl.constexpr,
):
    """The token of one row. Where nothing, or no number, is left of its logits, it is as a greedy one."""
    row = tl.program_id(0).to(tl.int64)
    own = logits + row * row_stride
    best, likeliest = find_largest(own, size, tile)
    token = likeliest
    if not is_greedy:
        temperature = tl.load(temperatures + row).to(tl.float32)
        largest = tl.max(best, 0)
        if (temperature > 0.0) & (tl.abs(largest) < float("inf")):
            top_k = tl.minimum(tl.load(top_ks + row), size).to(tl.int32)
            top_p, min_p = tl.load(top_ps + row).to(tl.float64), tl.load(min_ps + row).to(tl.float64)
            last_key = size * 0 + ALL
            if (top_k > 0) | (top_p < 1.0) | (min_p > 0.0):
                aside = asides + row * room
                last_key = last_key_of(
                    own, size, best, largest, temperature, top_k, top_p, min_p, aside, room, tile
                )
            token = token_at(
                own, size, largest, temperature, last_key, tl.load(uniforms + row), likeliest, tile
            )
    tl.store(token_ids + row, token.to(tl.int64))
