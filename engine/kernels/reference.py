"""Every operation of `Ops` in plain torch: runs everywhere, and is what a faster kernel must equal.

Attention gathers the visible keys and values by slot and runs masked scaled-dot-product
attention. Where everything lies is worked out once per step, group and window from plain
integers, so that no layer waits for the device. This module knows batches and caches, no models.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from engine.batch import Batch, LayerCache
from engine.kernels.cached import from_cached, write

SMALLEST_BUCKET = 128


def norm_residual(
    hidden: Tensor, residual: Tensor | None, weight: Tensor, eps: float
) -> tuple[Tensor, Tensor]:
    """RMSNorm over the last dimension, computed in float32 at least, rounded to the input's dtype.

    Source: Zhang and Sennrich 2019, Root Mean Square Layer Normalization (arXiv 1910.07467).
    """
    total = hidden if residual is None else hidden + residual
    wide = total if total.dtype == torch.float64 else total.float()
    normed = functional.rms_norm(wide, weight.shape[-1:], eps=eps).to(total.dtype)
    return normed * weight, total


def linear(hidden: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """hidden · weightᵀ + bias, [T, in] to [T, out]."""
    return functional.linear(hidden, weight, bias)


def silu_mul(gate_up: Tensor) -> Tensor:
    """silu(gate) · up of [T, 2 F], gate before up."""
    gate, up = gate_up.chunk(2, dim=-1)  # [T, F] each
    return functional.silu(gate) * up


@dataclass(frozen=True, slots=True, kw_only=True)
class Gather:
    """Slots to read, and where their keys and values go: the same memory for every layer of a step.

    Tried: fresh memory in each layer; the page faults cost more than the copying.
    """

    slots: Tensor  # [n] int64
    keys: Tensor  # [n, K, D], as cached
    values: Tensor

    @classmethod
    def of(cls, slots: Tensor, cache: LayerCache) -> "Gather":
        """A gather from caches shaped like `cache`."""
        shape = (len(slots), *cache.keys.shape[1:])
        return cls(slots=slots, keys=cache.keys.new_empty(shape), values=cache.values.new_empty(shape))

    def read(self, cache: LayerCache) -> tuple[Tensor, Tensor]:
        """(keys, values), valid until the next read."""
        torch.index_select(cache.keys, 0, self.slots, out=self.keys)
        torch.index_select(cache.values, 0, self.slots, out=self.values)
        return self.keys, self.values


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSpan:
    """Chunks of one token and similar length, attended in one padded call.

    `rows` None means all rows of the step, in order. Padding repeats the query's own slot and is
    masked, so that nothing is read which its sequence has not written.
    """

    rows: Tensor | None  # [n] int64
    gather: Gather  # of n * longest slots
    mask: Tensor  # [n, 1, 1, longest], added to the scores


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkSpan:
    """A chunk of several tokens, attended over its own visible keys."""

    rows: slice
    gather: Gather
    mask: Tensor  # [rows, keys], added to the scores


Span = DecodeSpan | ChunkSpan


class PreparedStep:
    """What the reference derives from a batch: full-width rotations, and spans on first use.

    The window is a layer's own, so spans are kept per group *and* window.
    """

    def __init__(self, batch: Batch, cos: Tensor, sin: Tensor) -> None:
        self._batch = batch
        self.cos = torch.cat((cos, cos), dim=-1).unsqueeze(1)  # [T, 1, D]
        self.signed_sin = torch.cat((-sin, sin), dim=-1).unsqueeze(1)  # [T, 1, D]
        self._spans: dict[tuple[int, int | None], tuple[Span, ...]] = {}

    def slots(self, group: int) -> Tensor:
        """[T]: where each token's key and value are written."""
        return self._batch.groups[group].slots

    def spans(self, cache: LayerCache, window: int | None) -> tuple[Span, ...]:
        """The attention calls of a layer; together they cover every row once."""
        spans = self._spans.get((cache.group, window))
        if spans is None:
            spans = _spans(self._batch, cache, window, self.cos.dtype)
            self._spans[cache.group, window] = spans
        return spans


def prepare(batch: Batch, cos: Tensor, sin: Tensor) -> PreparedStep:
    """The rotations at full head size; where keys lie is worked out when a layer first asks."""
    return PreparedStep(batch, cos, sin)


def rotate_and_write(
    query: Tensor, key: Tensor, value: Tensor, cache: LayerCache, prepared: object
) -> Tensor:
    """Rotate query [T, H, D] and key [T, K, D]; write key and value into the tokens' slots.

    Dimension i turns with dimension i + D / 2.
    Source: Su et al. 2021, RoFormer (arXiv 2104.09864).
    """
    assert isinstance(prepared, PreparedStep)
    slots = prepared.slots(cache.group)
    write(cache.keys, slots, _rotate(key, prepared))
    write(cache.values, slots, value)
    return _rotate(query, prepared)


def attend(query: Tensor, cache: LayerCache, prepared: object, window: int | None) -> Tensor:
    """Attention of [T, H, D] over the cache, [T, H · D]. Its own keys must have been written."""
    assert isinstance(prepared, PreparedStep)
    spans = prepared.spans(cache, window)
    if len(spans) == 1:
        return _attend_span(query, cache, spans[0]).flatten(1)
    output = torch.empty_like(query)
    for span in spans:
        rows = slice(None) if span.rows is None else span.rows
        output[rows] = _attend_span(query[rows], cache, span)
    return output.flatten(1)  # [T, H · D]


def _rotate(heads: Tensor, prepared: PreparedStep) -> Tensor:
    swapped = heads.roll(heads.shape[-1] // 2, dims=-1)  # [T, heads, D], halves exchanged
    return torch.addcmul(heads * prepared.cos, swapped, prepared.signed_sin)


def _attend_span(query: Tensor, cache: LayerCache, span: Span) -> Tensor:
    keys, values = (from_cached(cached, query.dtype) for cached in span.gather.read(cache))
    if isinstance(span, DecodeSpan):
        return _attend_decodes(query, keys, values, span.mask)
    attended = functional.scaled_dot_product_attention(
        query.transpose(0, 1).unsqueeze(0),  # [1, H, n, D]
        keys.transpose(0, 1).unsqueeze(0),  # [1, K, keys, D]
        values.transpose(0, 1).unsqueeze(0),
        attn_mask=span.mask,
        enable_gqa=True,
    )
    return attended.squeeze(0).transpose(0, 1)  # [n, H, D]


def _attend_decodes(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """The query heads that share a key head stand in for query positions: no key is repeated."""
    num_queries, num_heads, head_size = query.shape
    num_kv_heads, longest = keys.shape[1], mask.shape[-1]
    attended = functional.scaled_dot_product_attention(
        query.view(num_queries, num_kv_heads, -1, head_size),  # [n, K, H / K, D]
        keys.view(num_queries, longest, num_kv_heads, head_size).transpose(1, 2),  # [n, K, longest, D]
        values.view(num_queries, longest, num_kv_heads, head_size).transpose(1, 2),
        attn_mask=mask,
    )
    return attended.reshape(num_queries, num_heads, head_size)  # [n, H, D]


def _standing_span(
    batch: Batch, cache: LayerCache, window: int | None, dtype: torch.dtype
) -> tuple[DecodeSpan]:
    """One token of each chunk, over every slot of tables of constant width: all of it on the device."""
    group = batch.groups[cache.group]
    size = group.block_size
    last = batch.positions.unsqueeze(-1)  # [S, 1]
    base = group.base_positions.unsqueeze(-1)
    offsets = torch.arange(group.tables.shape[1] * size, device=last.device)  # [M * B]
    positions = base + offsets  # [S, M * B]
    is_hidden = positions > last
    if window is not None:
        is_hidden |= positions <= last - window
    mask = torch.zeros(positions.shape, dtype=dtype, device=last.device).masked_fill_(is_hidden, -torch.inf)
    offsets = torch.where(is_hidden, last - base, offsets)  # the query's own slot
    slots = group.tables.gather(1, offsets // size) * size + offsets % size
    return (DecodeSpan(rows=None, gather=Gather.of(slots.flatten(), cache), mask=mask[:, None, None]),)


def _spans(batch: Batch, cache: LayerCache, window: int | None, dtype: torch.dtype) -> tuple[Span, ...]:
    if batch.is_standing:
        return _standing_span(batch, cache, window, dtype)
    group = batch.groups[cache.group]
    buckets: dict[int, list[int]] = defaultdict(list)
    spans: list[Span] = []
    for chunk, start in enumerate(batch.starts):
        first = _first_visible(start, window)
        assert group.bases[chunk] <= first, "the table must reach back as far as the layer sees"
        if batch.row_starts[chunk + 1] - batch.row_starts[chunk] > 1:
            spans.append(_chunk_span(batch, cache, (window, dtype), chunk))
        else:
            buckets[_bucket(start + 1 - first)].append(chunk)
    for _, chunks in sorted(buckets.items()):
        spans.append(_decode_span(batch, cache, (window, dtype), chunks))
    return tuple(spans)


def _first_visible(position: int, window: int | None) -> int:
    return 0 if window is None else max(0, position - window + 1)


def _bucket(num_visible: int) -> int:
    """Lengths of one bucket differ at most by a factor of two, the short ones apart."""
    return max(SMALLEST_BUCKET, 1 << (num_visible - 1).bit_length())


def _decode_span(
    batch: Batch, cache: LayerCache, sight: tuple[int | None, torch.dtype], chunks: Sequence[int]
) -> DecodeSpan:
    """`sight` is the layer's window and the dtype of its scores."""
    window, dtype = sight
    group = batch.groups[cache.group]
    device = group.tables.device
    lasts = [batch.starts[chunk] for chunk in chunks]
    firsts = [_first_visible(last, window) for last in lasts]
    longest = 1 + max(last - first for last, first in zip(lasts, firsts, strict=True))
    bases = [group.bases[chunk] for chunk in chunks]
    rows = [batch.row_starts[chunk] for chunk in chunks]
    numbers = torch.tensor([firsts, lasts, bases, rows, chunks], device=device)  # the only copy to the device
    first, last, base = numbers[:3].unsqueeze(-1)  # [n, 1] each

    positions = first + torch.arange(longest, device=device)  # [n, longest]
    mask = torch.zeros(positions.shape, dtype=dtype, device=device)
    mask.masked_fill_(positions > last, float("-inf"))
    offsets = torch.minimum(positions, last) - base  # [n, longest]
    blocks = group.tables.index_select(0, numbers[4]).gather(1, offsets // group.block_size)
    slots = blocks * group.block_size + offsets % group.block_size  # [n, longest]
    return DecodeSpan(
        rows=None if len(chunks) == batch.num_chunks else numbers[3],
        gather=Gather.of(slots.flatten(), cache),
        mask=mask[:, None, None],
    )


def _chunk_span(
    batch: Batch, cache: LayerCache, sight: tuple[int | None, torch.dtype], chunk: int
) -> ChunkSpan:
    window, dtype = sight
    group = batch.groups[cache.group]
    device = group.tables.device
    rows = slice(batch.row_starts[chunk], batch.row_starts[chunk + 1])
    start, stop = batch.starts[chunk], batch.starts[chunk] + rows.stop - rows.start

    positions = torch.arange(_first_visible(start, window), stop, device=device)  # [keys]
    queries = torch.arange(start, stop, device=device).unsqueeze(-1)  # [rows, 1]
    is_hidden = positions > queries  # [rows, keys]
    if window is not None:
        is_hidden |= positions <= queries - window
    mask = torch.zeros(is_hidden.shape, dtype=dtype, device=device)
    mask.masked_fill_(is_hidden, float("-inf"))
    offsets = positions - group.bases[chunk]
    blocks = group.tables[chunk].index_select(0, offsets // group.block_size)
    slots = blocks * group.block_size + offsets % group.block_size
    return ChunkSpan(rows=rows, gather=Gather.of(slots, cache), mask=mask)
