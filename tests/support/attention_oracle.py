"""Attention by definition, in float64 and three loops, and paged inputs for it laid out by hand."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from engine.batch import Batch, GroupBatch, LayerCache
from engine.kernels.cached import from_cached, to_cached


@dataclass(frozen=True, slots=True, kw_only=True)
class PagedCase:
    """Random queries over random caches; `keys[s]` and `values[s]` are chunk s's, by position."""

    query: Tensor  # [T, H, D]
    keys: tuple[Tensor, ...]  # [S] of [stop, K, D]
    values: tuple[Tensor, ...]
    spans: tuple[tuple[int, int], ...]  # [S] positions of each chunk
    batch: Batch
    cache: LayerCache


def brute_force_attention(case: PagedCase, window: int | None) -> Tensor:
    """[T, H · D] float64: softmax over the visible positions, one query, head and key at a time."""
    rows = []
    row = 0
    for (start, stop), keys, values in zip(case.spans, case.keys, case.values, strict=True):
        for position in range(start, stop):
            numbers = (tensor.double().numpy() for tensor in (case.query[row], keys, values))
            rows.append(torch.from_numpy(_one_query(*numbers, position, window)))
            row += 1
    return torch.stack(rows)


def _one_query(
    query: np.ndarray, keys: np.ndarray, values: np.ndarray, position: int, window: int | None
) -> np.ndarray:
    num_heads, head_size = query.shape
    group = num_heads // keys.shape[1]
    output = np.zeros_like(query)
    for head in range(num_heads):
        weights = {}
        for at in range(position + 1):
            if window is None or position - at < window:
                score = float(query[head] @ keys[at, head // group]) / math.sqrt(head_size)
                weights[at] = math.exp(score)
        total = sum(weights.values())
        for at, weight in weights.items():
            output[head] += weight / total * values[at, head // group]
    return output.flatten()


def paged_case(
    spans: Sequence[tuple[int, int]],
    window: int | None,
    *,
    block_size: int = 4,
    dtype: torch.dtype = torch.float32,
    heads: tuple[int, int, int] = (4, 2, 8),
    seed: int = 0,
) -> PagedCase:
    """Chunks at positions `spans`, their tables reaching back `window`; `heads` is (H, K, D).

    Blocks lie in random order, tables have a spare column, and slots of positions that no query
    may see hold NaN.
    """
    num_heads, num_kv_heads, head_size = heads
    generator = torch.Generator().manual_seed(seed)
    block_counts = [(stop - 1) // block_size + 1 for _, stop in spans]
    num_blocks = sum(block_counts) + 1
    ids = random.Random(seed).sample(range(num_blocks), num_blocks)

    def draw(count: int, num: int) -> Tensor:
        return torch.randn(count, num, head_size, generator=generator, dtype=torch.float64).to(dtype)

    shape = (num_blocks * block_size, num_kv_heads, head_size)
    cache_keys, cache_values = (
        torch.full(shape, math.nan, dtype=dtype),
        torch.full(shape, math.nan, dtype=dtype),
    )
    keys, values, tables, bases, slots = [], [], [], [], []
    for (start, stop), count in zip(spans, block_counts, strict=True):
        own = [ids.pop() for _ in range(count)]
        own_slots = [own[at // block_size] * block_size + at % block_size for at in range(stop)]
        first = 0 if window is None else max(0, start - window + 1)
        keys.append(draw(stop, num_kv_heads))
        values.append(draw(stop, num_kv_heads))
        cache_keys[own_slots[first:]] = keys[-1][first:]
        cache_values[own_slots[first:]] = values[-1][first:]
        tables.append(own[first // block_size :])
        bases.append(first // block_size * block_size)
        slots += own_slots[start:]
    batch = _batch(spans, window, block_size, slots, list(zip(bases, tables, strict=True)))
    return PagedCase(
        query=draw(batch.row_starts[-1], num_heads),
        keys=tuple(keys),
        values=tuple(values),
        spans=tuple(spans),
        batch=batch,
        cache=LayerCache(group=0, keys=cache_keys, values=cache_values),
    )


def in_cache_of(dtype: torch.dtype, case: PagedCase) -> PagedCase:
    """The case with its cache in another type."""
    cache = LayerCache(
        group=0, keys=to_cached(case.cache.keys, dtype), values=to_cached(case.cache.values, dtype)
    )
    return replace(case, cache=cache)


def held_in(dtype: torch.dtype, case: PagedCase) -> PagedCase:
    """The case with the keys and values that a cache of `dtype` would hold."""

    def held(vectors: torch.Tensor) -> torch.Tensor:
        return from_cached(to_cached(vectors, dtype), torch.float64)

    return replace(case, keys=tuple(map(held, case.keys)), values=tuple(map(held, case.values)))


def _batch(
    spans: Sequence[tuple[int, int]],
    window: int | None,
    block_size: int,
    slots: list[int],
    tables: list[tuple[int, list[int]]],
) -> Batch:
    """The tensors of a step whose chunks have these (base, table) pairs."""
    row_starts = [0]
    for start, stop in spans:
        row_starts.append(row_starts[-1] + stop - start)
    width = 1 + max(len(table) for _, table in tables)
    group = GroupBatch(
        window=window,
        block_size=block_size,
        slots=torch.tensor(slots),
        tables=torch.tensor([table + [0] * (width - len(table)) for _, table in tables]),
        bases=tuple(base for base, _ in tables),
    )
    return Batch(
        token_ids=torch.zeros(row_starts[-1], dtype=torch.int64),
        positions=torch.tensor([at for start, stop in spans for at in range(start, stop)]),
        wanted_rows=torch.arange(row_starts[-1]),
        row_starts=tuple(row_starts),
        starts=tuple(start for start, _ in spans),
        groups=(group,),
    )
