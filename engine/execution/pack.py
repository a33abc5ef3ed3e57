"""`pack(plan)`: lays the ragged chunks of a plan end to end into the tensors of a Batch.

Everything integral of a step travels to the device in one copy, and is cut into views there.
"""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, chain

import torch
from torch import Tensor

from engine.batch import Batch, GroupBatch
from engine.cache.layout import CacheGroup, CacheLayout
from engine.plan import Chunk, StepPlan


@dataclass(frozen=True, slots=True, kw_only=True)
class PackedStep:
    """A Batch, and what becomes of its wanted rows: first the scored ones, then the drawn ones.

    `score_ids` are the tokens the scored rows are asked about; the last rows of `drawing` (chunk
    indices) are drawn from. `taken` names, for chunks whose last input is the token just drawn in
    the step before, the row of the batch it goes to and the sequence it comes from.
    """

    batch: Batch
    num_scored: int
    score_ids: Tensor  # [num_scored] int64
    drawing: tuple[int, ...]
    taken: tuple[tuple[int, int], ...]


def pack(plan: StepPlan, layout: CacheLayout, device: torch.device) -> PackedStep:
    """The tensors of `plan` on `device`. Tokens not known yet are packed as 0."""
    chunks = plan.chunks
    row_starts = tuple(accumulate([chunk.stop - chunk.start for chunk in chunks], initial=0))
    drawing = tuple(index for index, chunk in enumerate(chunks) if chunk.draw is not None)
    score_ids = [token_id for chunk in chunks for token_id in chunk.score_ids]
    columns = [
        _token_ids(chunks),
        list(chain.from_iterable([range(chunk.start, chunk.stop) for chunk in chunks])),
        _scored_rows(chunks, row_starts) + [row_starts[index + 1] - 1 for index in drawing],
        score_ids,
        list(row_starts),
    ]
    widths = [max(len(chunk.tables[g].block_ids) for chunk in chunks) for g in range(len(layout.groups))]
    for index, width in enumerate(widths):
        columns.append(_slots(chunks, index, layout.block_size))
        columns.append(_padded_tables(chunks, index, width))
        columns.append([chunk.tables[index].first_block * layout.block_size for chunk in chunks])
    token_ids, positions, wanted_rows, scored, row_bounds, *places = _to_device(columns, device)
    groups = tuple(
        _group_batch(layout.groups[g], layout.block_size, chunks, g, places[3 * g : 3 * g + 3])
        for g in range(len(layout.groups))
    )
    batch = Batch(
        token_ids=token_ids,
        positions=positions,
        wanted_rows=wanted_rows,
        row_starts=row_starts,
        row_bounds=row_bounds,
        starts=tuple(chunk.start for chunk in chunks),
        groups=groups,
    )
    return PackedStep(
        batch=batch,
        num_scored=len(score_ids),
        score_ids=scored,
        drawing=drawing,
        taken=tuple(
            (row_starts[index + 1] - 1, chunk.sequence_id)
            for index, chunk in enumerate(chunks)
            if chunk.takes_last_draw
        ),
    )


def _token_ids(chunks: Sequence[Chunk]) -> list[int]:
    token_ids: list[int] = []
    for chunk in chunks:
        token_ids += chunk.token_ids
        if chunk.takes_last_draw:
            token_ids.append(0)
    return token_ids


def _scored_rows(chunks: Sequence[Chunk], row_starts: Sequence[int]) -> list[int]:
    rows: list[int] = []
    for chunk, row_start in zip(chunks, row_starts, strict=False):
        if not chunk.score_ids:
            continue
        first = row_start + chunk.score_from - chunk.start
        rows += range(first, first + len(chunk.score_ids))
    return rows


def _slots(chunks: Sequence[Chunk], group: int, block_size: int) -> list[int]:
    slots: list[int] = []
    for chunk in chunks:
        first_block, block_ids = chunk.tables[group]
        position = chunk.start
        while position < chunk.stop:  # a block at a time
            number, offset = divmod(position, block_size)
            first_slot = block_ids[number - first_block] * block_size + offset
            num_slots = min(block_size - offset, chunk.stop - position)
            slots += range(first_slot, first_slot + num_slots)
            position += num_slots
    return slots


def _padded_tables(chunks: Sequence[Chunk], group: int, width: int) -> list[int]:
    padded: list[int] = []
    for chunk in chunks:
        block_ids = chunk.tables[group].block_ids
        padded += block_ids
        padded += [0] * (width - len(block_ids))
    return padded


def _to_device(columns: list[list[int]], device: torch.device) -> Sequence[Tensor]:
    """One tensor per column, views of one buffer that crossed to the device at once."""
    packed = torch.frombuffer(array("q", chain.from_iterable(columns)), dtype=torch.int64)
    if device.type == "cuda":
        packed = packed.pin_memory().to(device, non_blocking=True)
    return packed.split_with_sizes([len(column) for column in columns])


def _group_batch(
    group: CacheGroup, block_size: int, chunks: Sequence[Chunk], index: int, places: Sequence[Tensor]
) -> GroupBatch:
    slots, tables, base_positions = places
    return GroupBatch(
        window=group.window,
        block_size=block_size,
        slots=slots,
        tables=tables.view(len(chunks), -1),  # [S, M]
        bases=tuple(chunk.tables[index].first_block * block_size for chunk in chunks),
        base_positions=base_positions,
    )
