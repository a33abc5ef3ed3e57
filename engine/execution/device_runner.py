"""`DeviceRunner`: computes plans on a device that works beside the host, and lets neither wait for the other.

A step in which every sequence decodes is replayed from `DecodeGraphs`; any other is computed eagerly, all
of its chunks in one pass: such a step is long on the device, so that launching it is hidden behind the
step before. Either way drawn tokens stay on the device for the next step, and go to the host beside it.
Draws that ask for rare stages are made by the sampler that knows all, from logits on the device. It
implements `Runner`, for as many steps in flight as there are.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.cache.layout import CacheLayout
from engine.cache.store import CacheStore
from engine.execution.device_errors import device_errors
from engine.execution.device_sampler import DeviceSampler
from engine.execution.graphs import MAX_BUCKET, DecodeGraphs, StandingParts
from engine.execution.lanes import Lanes
from engine.execution.link import Download, Link
from engine.execution.pack import PackedStep, pack
from engine.execution.plain_draw import DrawKind, DrawPlainly, draw_plainly, kind_of
from engine.execution.ring_tables import RingTables
from engine.execution.row_answers import HEAD_TILE_ROWS, Bits, MaskSource, to_result
from engine.execution.runner import Model
from engine.execution.scored_rows import ScoredRows
from engine.execution.step_columns import StepColumns
from engine.plan import Chunk, StepHandle, StepPlan, StepResult

NUM_SPARE_BLOCKS = 1
"""Blocks that the cache must have beyond the pool's, for rows that are computed for nobody."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceParts:
    """What a runner works with; `store` has `NUM_SPARE_BLOCKS` spare blocks."""

    model: Model
    store: CacheStore
    layout: CacheLayout
    link: Link
    masks: MaskSource
    max_running: int
    draw: DrawPlainly = draw_plainly


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceStep:
    """A step under way, and its answers on their way: token ids, then the columns of scored rows."""

    plan: StepPlan
    num_drawn_tiles: int
    download: Download


class DeviceRunner:
    """A model, its cache and a device."""

    def __init__(self, parts: DeviceParts) -> None:
        self._parts = parts
        device = parts.store.device
        self._device = device
        self._lanes = Lanes(parts.max_running)
        tables = RingTables(parts.layout, parts.max_running, device)
        largest = max(parts.max_running, MAX_BUCKET)
        self._columns = StepColumns(parts.link, largest, tables, device)
        self._last_ids = torch.zeros(parts.max_running + 1, dtype=torch.int64, device=device)
        self._sampler = DeviceSampler(parts.draw)
        standing = StandingParts(
            model=parts.model,
            caches=parts.store.layers,
            tables=tables,
            columns=self._columns,
            last_ids=self._last_ids,
            draw=parts.draw,
        )
        self.graphs = DecodeGraphs(standing, parts.link, parts.max_running)

    def record(self, on_progress: Callable[[int, int], None]) -> None:
        """Record all decode steps; without it every step is eager."""
        with device_errors():
            self.graphs.record_all(on_progress)

    def begin(self, plan: StepPlan) -> DeviceStep:
        """Queue the step. Waits for masks, if any draw is masked, and for nothing of the device."""
        filling = self._begin_masks(plan)
        try:
            with device_errors():
                return self._begin(plan, filling)
        except BaseException:
            self._columns.forget()
            raise

    def finish(self, handle: StepHandle) -> StepResult:
        """Wait for what came back of this step, whatever is queued behind it."""
        assert isinstance(handle, DeviceStep)
        with device_errors():
            arrived = handle.download.wait()
        token_ids: list[int] = arrived[0].tolist()
        width = len(ScoredRows._fields)
        tiles = [ScoredRows(*arrived[first : first + width]) for first in range(1, len(arrived), width)]
        drawn, scored = tiles[: handle.num_drawn_tiles], tiles[handle.num_drawn_tiles :]
        return to_result(handle.plan, token_ids, drawn, scored)

    def _begin(self, plan: StepPlan, filling: "Future[Bits] | None") -> DeviceStep:
        chunks = plan.chunks
        drawing = tuple(index for index, chunk in enumerate(chunks) if chunk.draw is not None)
        size = self.graphs.bucket(len(chunks)) if len(drawing) == len(chunks) else None
        is_decode = size is not None and all(
            chunk.stop - chunk.start == 1 and not chunk.score_ids for chunk in chunks
        )
        scored: tuple[ScoredRows, ...] = ()
        if is_decode and self.graphs.num_recorded and size is not None:
            token_ids, drawn = self._replay(chunks, size, filling)
        else:
            token_ids, drawn, scored = self._compute(plan, drawing, filling)
        columns = [column for tile in (*drawn, *scored) for column in tile]
        return DeviceStep(
            plan=plan,
            num_drawn_tiles=len(drawn),
            download=self._parts.link.download([token_ids, *columns]),
        )

    def _replay(
        self, chunks: Sequence[Chunk], size: int, filling: "Future[Bits] | None"
    ) -> tuple[Tensor, tuple[ScoredRows, ...]]:
        kind = kind_of([chunk.draw for chunk in chunks if chunk.draw is not None])
        lanes = self._lanes.take([chunk.sequence_id for chunk in chunks])
        self._columns.send(lanes, chunks, kind, size, with_tables=True)
        found = self.graphs.replay(size, kind)[: len(chunks)]
        if kind is not DrawKind.RARE:
            return found.clone(), ()  # the next replay writes over it, maybe before it is on the host
        bits = None if filling is None else filling.result()
        return self._draw_rarely(found, chunks, self._columns.rows(size).lanes[: len(chunks)], bits)

    def _compute(
        self, plan: StepPlan, drawing: Sequence[int], filling: "Future[Bits] | None"
    ) -> tuple[Tensor, tuple[ScoredRows, ...], tuple[ScoredRows, ...]]:
        packed = pack(plan, self._parts.layout, self._device)
        chunks = [plan.chunks[index] for index in drawing]
        if packed.taken:
            self._put_last_draws(packed)
        hidden = self._parts.model(packed.batch, self._parts.store.layers)  # [R, E]
        scored = self._score(plan, packed, hidden) if packed.num_scored else ()
        bits = None if filling is None else filling.result()
        token_ids, drawn = self._draw(chunks, hidden[packed.num_scored :], bits)
        return token_ids, drawn, scored

    def _put_last_draws(self, packed: PackedStep) -> None:
        """Fill in the inputs that the step before drew, which may still be on their way."""
        lanes = self._lanes.take([sequence_id for _, sequence_id in packed.taken])
        number = len(lanes)
        placed = self._parts.link.place([*(row for row, _ in packed.taken), *lanes])
        packed.batch.token_ids.index_copy_(
            0, placed[:number], self._last_ids.index_select(0, placed[number:])
        )

    def _score(self, plan: StepPlan, packed: PackedStep, hidden: Tensor) -> tuple[ScoredRows, ...]:
        num_top = max(chunk.num_score_top for chunk in plan.chunks)
        found = []
        for first in range(0, packed.num_scored, HEAD_TILE_ROWS):
            tile = slice(first, min(packed.num_scored, first + HEAD_TILE_ROWS))
            logits = self._parts.model.logits(hidden[tile])
            found.append(self._sampler.score(logits, packed.score_ids[tile], num_top))
        return tuple(found)

    def _draw(
        self, chunks: Sequence[Chunk], hidden: Tensor, bits: Bits | None
    ) -> tuple[Tensor, tuple[ScoredRows, ...]]:
        """One token per chunk, from its row of `hidden`, left for the next step too."""
        token_ids: list[Tensor] = [self._last_ids[:0]]
        scored: list[ScoredRows] = []
        lanes = self._lanes.take([chunk.sequence_id for chunk in chunks])
        num_masked = 0
        for first in range(0, len(chunks), MAX_BUCKET):
            tile = slice(first, first + MAX_BUCKET)
            own = chunks[tile]
            kind = kind_of([chunk.draw for chunk in own if chunk.draw is not None])
            self._columns.send(lanes[tile], own, kind, len(own), with_tables=False)
            rows = self._columns.rows(len(own))
            logits = self._parts.model.logits(hidden[tile])
            if kind is DrawKind.RARE:
                number = sum(chunk.draw is not None and chunk.draw.is_masked for chunk in own)
                own_bits = bits[num_masked : num_masked + number] if bits is not None and number else None
                num_masked += number
                ids, found = self._draw_rarely(logits, own, rows.lanes, own_bits)
                scored += found
            else:
                ids = self._parts.draw(kind, logits, rows.draws)
                self._last_ids.index_copy_(0, rows.lanes, ids)
            token_ids.append(ids)
        return torch.cat(token_ids), tuple(scored)

    def _draw_rarely(
        self, logits: Tensor, chunks: Sequence[Chunk], lanes: Tensor, bits: Bits | None
    ) -> tuple[Tensor, tuple[ScoredRows, ...]]:
        draws = [chunk.draw for chunk in chunks if chunk.draw is not None]
        ids, found = self._sampler.draw(logits, draws, [chunk.stop for chunk in chunks], bits)
        self._last_ids.index_copy_(0, lanes, ids)
        return ids, () if found is None else (found,)

    def _begin_masks(self, plan: StepPlan) -> "Future[Bits] | None":
        """Have the masks of masked draws found while the model computes; None if there are none."""
        masked = [
            chunk.sequence_id for chunk in plan.chunks if chunk.draw is not None and chunk.draw.is_masked
        ]
        return self._parts.masks.fill(masked) if masked else None
