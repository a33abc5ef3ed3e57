"""`RingTables`: the block tables of all lanes, held on the device and kept up by what differs.

A lane's ring has the entries of a `BlockTable`: block number k lies in entry k modulo M. Between two steps
a sequence that decodes gets one block in `block_size` steps, so that a step sends a few numbers and no
table. The rotated tables that attention reads are turned out of the rings on the device, from the
positions alone, so that a recorded step may do it. It knows no sequence and no scheduler.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.batch import GroupBatch
from engine.cache.layout import CacheGroup, CacheLayout
from engine.plan import ChunkTable


@dataclass(frozen=True, slots=True, kw_only=True)
class Rings:
    """The rings of one cache group: entry e of lane l is number `first_place` + l * M + e of all entries."""

    group: CacheGroup
    first_place: int
    entries: Tensor  # [lanes, M] int64


class RingTables:
    """Lanes of rings for each cache group; the last lane is nobody's, and names `spare_block` alone."""

    def __init__(self, layout: CacheLayout, num_lanes: int, device: torch.device) -> None:
        self._block_size = layout.block_size
        self._known: list[tuple[ChunkTable, ...] | None] = [None] * num_lanes
        self.spare_lane = num_lanes
        spare_block = layout.num_blocks
        sizes = [(num_lanes + 1) * group.ring_blocks for group in layout.groups]
        self.entries = torch.full((sum(sizes),), spare_block, dtype=torch.int64, device=device)
        self._rings: list[Rings] = []
        first = 0
        for group, size in zip(layout.groups, sizes, strict=True):
            own = self.entries[first : first + size].view(num_lanes + 1, -1)
            self._rings.append(Rings(group=group, first_place=first, entries=own))
            first += size

    def differences(self, lane: int, tables: tuple[ChunkTable, ...]) -> list[tuple[int, int]]:
        """(place, block id) of each entry that the lane's rings lack of `tables`; they count as told from now on."""
        known = self._known[lane]
        if known is not None and all(map(_is_same, known, tables)):
            return []
        self._known[lane] = tables
        found: list[tuple[int, int]] = []
        for index, (rings, table) in enumerate(zip(self._rings, tables, strict=True)):
            size = rings.group.ring_blocks
            first = rings.first_place + lane * size
            for number in _news(None if known is None else known[index], table):
                found.append((first + number % size, table.block_ids[number - table.first_block]))
        return found

    def forget(self) -> None:
        """Tell everything anew: what was told last may not have arrived."""
        self._known = [None] * len(self._known)

    def group_batches(self, lanes: Tensor, positions: Tensor) -> tuple[GroupBatch, ...]:
        """Each lane [S] computes the one token at its position [S]. Asks the host for nothing."""
        return tuple(self._group_batch(rings, lanes, positions) for rings in self._rings)

    def _group_batch(self, rings: Rings, lanes: Tensor, positions: Tensor) -> GroupBatch:
        window, width, size = rings.group.window, rings.group.ring_blocks, self._block_size
        tables = rings.entries.index_select(0, lanes)  # [S, M], as the rings stand
        own_entries = (positions // size % width).unsqueeze(-1)  # [S, 1]
        own_blocks = tables.gather(1, own_entries).squeeze(-1)  # [S]
        bases = torch.zeros_like(positions)
        if window is not None:
            first = (positions - (window - 1)).clamp_(min=0) // size  # number of the oldest visible block
            numbers = first.unsqueeze(-1) + torch.arange(width, device=positions.device)  # [S, M]
            tables = tables.gather(1, numbers % width)  # rotated: the oldest block first
            bases = first * size
        return GroupBatch(
            window=window,
            block_size=size,
            slots=own_blocks * size + positions % size,
            tables=tables,
            bases=(),
            base_positions=bases,
        )


def _is_same(known: ChunkTable, table: ChunkTable) -> bool:
    """Tables are made anew when a block comes or goes, and handed out as they are otherwise."""
    return known is table


def _news(known: ChunkTable | None, table: ChunkTable) -> Sequence[int]:
    """Block numbers of `table` that `known` does not have as they are."""
    start, stop = table.first_block, table.first_block + len(table.block_ids)
    if known is None:
        return range(start, stop)
    known_stop = known.first_block + len(known.block_ids)
    shared_start, shared_stop = max(start, known.first_block), min(stop, known_stop)
    if shared_start >= shared_stop:
        return range(start, stop)
    before = known.block_ids[shared_start - known.first_block : shared_stop - known.first_block]
    now = table.block_ids[shared_start - start : shared_stop - start]
    if before != now:
        return range(start, stop)
    return [*range(start, shared_start), *range(shared_stop, stop)]
