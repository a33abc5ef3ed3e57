"""`DecodeGraphs`: steps in which every sequence decodes, recorded once for each number of rows.

A recorded step is the same forward pass as an eager one, over a standing batch: inputs come from the
columns that were sent last, block tables are turned out of the rings on the device, tokens drawn by the
step before are taken where they were left, and those drawn now are left for the next. Replaying it is one
launch. It knows no plan and no sequence.
Source of the idea: CUDA graphs for decoding as in gpt-fast and vLLM; buckets are rounded up and filled with
rows for nobody.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.execution.link import Link, Replay
from engine.execution.plain_draw import DrawKind, DrawPlainly
from engine.execution.ring_tables import RingTables
from engine.execution.runner import Model
from engine.execution.step_columns import StepColumns

MAX_BUCKET = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class StandingParts:
    """What a recorded step works with; all of it stays where it is."""

    model: Model
    caches: tuple[LayerCache, ...]
    tables: RingTables
    columns: StepColumns
    last_ids: Tensor  # [lanes + 1] int64: the token drawn last for each lane
    draw: DrawPlainly


def buckets(max_rows: int) -> tuple[int, ...]:
    """Numbers of rows that steps are recorded for: 1, 2, 4, 8, 16, 24 … up to `max_rows` or 256.

    >>> buckets(30)
    (1, 2, 4, 8, 16, 24, 32)
    """
    most = min(MAX_BUCKET, max_rows)
    steps = [1, 2, 4, *range(8, MAX_BUCKET + 1, 8)]
    steps = [size for size in steps if size not in range(9, 16)]
    return tuple(size for index, size in enumerate(steps) if index == 0 or steps[index - 1] < most)


class DecodeGraphs:
    """A recorded step for each bucket and kind of draw; all of them are recorded by `record_all`."""

    def __init__(self, parts: StandingParts, link: Link, max_rows: int) -> None:
        self._parts = parts
        self._link = link
        self._buckets = buckets(max_rows)
        self._replays: dict[tuple[int, DrawKind], Replay] = {}
        device = parts.last_ids.device
        self._bounds = torch.arange(self._buckets[-1] + 1, device=device)

    @property
    def num_recorded(self) -> int:
        """How many there are."""
        return len(self._replays)

    def bucket(self, num_rows: int) -> int | None:
        """The least bucket that holds so many rows, None where all are too small."""
        return next((size for size in self._buckets if size >= num_rows), None)

    def record_all(self, on_progress: Callable[[int, int], None]) -> None:
        """Record every bucket and kind, the largest first, so that the others fit into its memory."""
        keys = [(size, kind) for size in reversed(self._buckets) for kind in DrawKind]
        self.record(keys, on_progress)

    def record(self, keys: Sequence[tuple[int, DrawKind]], on_progress: Callable[[int, int], None]) -> None:
        """Record these; `on_progress(done, total)` is told of each."""
        for done, (size, kind) in enumerate(keys, 1):
            self._parts.columns.clear(size)
            self._replays[size, kind] = self._link.record(partial(self._compute, size, kind))
            on_progress(done, len(keys))

    def replay(self, size: int, kind: DrawKind) -> Tensor:
        """Compute the step whose columns were sent: token ids [size], or for rare draws logits [size, V].

        Valid until the next replay.
        """
        return self._replays[size, kind]()

    def _compute(self, size: int, kind: DrawKind) -> Tensor:
        parts = self._parts
        rows = parts.columns.rows(size)
        taken = parts.last_ids.index_select(0, rows.lanes)  # [size]
        batch = Batch(
            token_ids=torch.where(rows.token_ids < 0, taken, rows.token_ids),
            positions=rows.positions,
            wanted_rows=self._bounds[:size],
            row_starts=tuple(range(size + 1)),
            row_bounds=self._bounds[: size + 1],
            starts=(),
            groups=parts.tables.group_batches(rows.lanes, rows.positions),
        )
        logits = parts.model.logits(parts.model(batch, parts.caches))  # [size, V]
        if kind is DrawKind.RARE:
            return logits
        token_ids = parts.draw(kind, logits, rows.draws)
        parts.last_ids.index_copy_(0, rows.lanes, token_ids)
        return token_ids
