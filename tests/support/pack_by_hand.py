"""`RingRun`: run a decoder over ring tables worked out by hand, one step after another.

It shares no code with the engine's own packing and pool. Blocks are handed out in random order,
and every slot that holds nothing visible is NaN: whoever reads one, or one too many, shows it.
"""

import math
import random
from collections.abc import Sequence

import torch

from engine.batch import Batch, GroupBatch, LayerCache
from engine.models.decoder import Decoder


class Ring:
    """The blocks of one sequence in one group: entry k mod M holds block number k."""

    def __init__(self, window: int | None, block_size: int, max_chunk: int, max_context: int) -> None:
        self.window = window
        self.block_size = block_size
        if window is None:
            self.num_entries = math.ceil(max_context / block_size)
        else:
            self.num_entries = 1 + math.ceil((window + max_chunk - 2) / block_size)
        self.block_ids: dict[int, int] = {}  # block number -> block id

    def table(self, start: int, stop: int) -> tuple[int, list[int]]:
        """(base, block ids) of what a chunk [start, stop) reads and writes, oldest first."""
        first = 0 if self.window is None else max(0, start - self.window + 1) // self.block_size
        numbers = range(first, (stop - 1) // self.block_size + 1)
        return first * self.block_size, [self.block_ids[number] for number in numbers]


class RingRun:
    """Sequences computed chunk by chunk; `step` returns the logits of all its rows."""

    def __init__(
        self,
        decoder: Decoder,
        *,
        block_size: int,
        max_chunk: int,
        num_sequences: int = 1,
        max_context: int = 64,
        seed: int = 0,
    ) -> None:
        spec, weights = decoder.spec, decoder.norm.weight
        self.decoder = decoder
        self.windows = sorted(set(spec.layer_windows), key=str)
        self.rings = [
            [Ring(window, block_size, max_chunk, max_context) for window in self.windows]
            for _ in range(num_sequences)
        ]
        num_blocks = sum(ring.num_entries for rings in self.rings for ring in rings)
        self.free = random.Random(seed).sample(range(num_blocks), num_blocks)
        shape = (num_blocks * block_size, spec.num_kv_heads, spec.head_size)
        self.caches = [
            LayerCache(
                group=self.windows.index(window),
                keys=torch.full(shape, math.nan, dtype=weights.dtype, device=weights.device),
                values=torch.full(shape, math.nan, dtype=weights.dtype, device=weights.device),
            )
            for window in spec.layer_windows
        ]
        self.block_size = block_size
        self.lengths = [0] * num_sequences

    def step(
        self, chunks: Sequence[tuple[int, Sequence[int]]], wanted: Sequence[int] | None = None
    ) -> torch.Tensor:
        """Compute the next tokens of each (sequence, token ids); logits of the wanted rows, else of all."""
        spans = []
        for sequence, token_ids in chunks:
            start = self.lengths[sequence]
            stop = start + len(token_ids)
            for ring in self.rings[sequence]:
                self._reserve(ring, start, stop)
            spans.append((sequence, start, stop))
            self.lengths[sequence] = stop
        ids = [token_id for _, token_ids in chunks for token_id in token_ids]
        batch = self._batch(spans, ids, range(len(ids)) if wanted is None else wanted)
        with torch.inference_mode():
            return self.decoder.logits(self.decoder(batch, self.caches))

    def _reserve(self, ring: Ring, start: int, stop: int) -> None:
        """Give every block number of the chunk a block, in place of the one M numbers before it."""
        for number in range(start // self.block_size, (stop - 1) // self.block_size + 1):
            if number in ring.block_ids:
                continue
            if number - ring.num_entries in ring.block_ids:
                dead = ring.block_ids.pop(number - ring.num_entries)
                self._poison(dead)
                self.free.insert(0, dead)
            ring.block_ids[number] = self.free.pop()

    def _poison(self, block_id: int) -> None:
        slots = slice(block_id * self.block_size, (block_id + 1) * self.block_size)
        for cache in self.caches:
            cache.keys[slots] = math.nan
            cache.values[slots] = math.nan

    def _batch(self, spans: list[tuple[int, int, int]], token_ids: list[int], wanted: Sequence[int]) -> Batch:
        device = self.caches[0].keys.device
        row_starts = [0]
        for _, start, stop in spans:
            row_starts.append(row_starts[-1] + stop - start)
        positions = [position for _, start, stop in spans for position in range(start, stop)]
        return Batch(
            token_ids=torch.tensor(token_ids, device=device),
            positions=torch.tensor(positions, device=device),
            wanted_rows=torch.tensor(list(wanted), device=device),
            row_starts=tuple(row_starts),
            row_bounds=torch.tensor(row_starts, device=device),
            starts=tuple(start for _, start, _ in spans),
            groups=tuple(self._group(index, spans, device) for index in range(len(self.windows))),
        )

    def _group(self, index: int, spans: list[tuple[int, int, int]], device: torch.device) -> GroupBatch:
        slots, tables, bases = [], [], []
        for sequence, start, stop in spans:
            ring = self.rings[sequence][index]
            base, block_ids = ring.table(start, stop)
            for position in range(start, stop):
                block_id = ring.block_ids[position // self.block_size]
                slots.append(block_id * self.block_size + position % self.block_size)
            tables.append(block_ids)
            bases.append(base)
        width = max(len(block_ids) for block_ids in tables)
        return GroupBatch(
            window=self.windows[index],
            block_size=self.block_size,
            slots=torch.tensor(slots, device=device),
            tables=torch.tensor([ids + [0] * (width - len(ids)) for ids in tables], device=device),
            bases=tuple(bases),
            base_positions=torch.tensor(bases, device=device),
        )
