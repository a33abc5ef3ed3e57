"""`ModelRunner`: turns a StepPlan into a StepResult on one device: pack, forward, sample.

It knows no queue and no request: what it is told about a sequence is in the plan.
"""

from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.cache.layout import CacheLayout
from engine.cache.store import CacheStore
from engine.execution.pack import PackedStep, pack
from engine.execution.results import device_errors, to_result
from engine.execution.sampler import Sampler, TorchSampler
from engine.execution.scoring import ScoredRows
from engine.plan import StepHandle, StepPlan, StepResult

# Rows of logits that exist at once: a long scored prompt costs no vocabulary-sized memory per token.
HEAD_TILE_ROWS = 64

Bits = npt.NDArray[np.int32]


class Model(Protocol):
    """What the runner asks of a decoder."""

    def __call__(self, batch: Batch, caches: tuple[LayerCache, ...]) -> Tensor:
        """Hidden states `[R, E]` of the wanted rows, the final norm applied."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[R, V]` of hidden states, in at least float32."""
        ...


class MaskSource(Protocol):
    """Where the masks of constrained sequences come from."""

    def fill(self, sequence_ids: Sequence[int]) -> "Future[Bits]":
        """Begin to find the packed masks `[rows, V / 32]` of these sequences' next draws."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A step under way: its plan, and its answers while they are on the device."""

    plan: StepPlan
    drawing: tuple[int, ...]
    token_ids: Tensor  # [R] int64, one per drawing chunk
    drawn: tuple[ScoredRows, ...]  # tiles of the rows of those draws that ask
    scored: tuple[ScoredRows, ...]  # tiles of the rows of all chunks' `score_ids`


class ModelRunner:
    """A model, its cache and a device. Implements `Runner`."""

    def __init__(
        self,
        model: Model,
        store: CacheStore,
        layout: CacheLayout,
        *,
        masks: MaskSource | None = None,
        sampler: Sampler | None = None,
    ) -> None:
        """Without `masks` no draw may be masked; `sampler` is None for the one in torch."""
        self._model = model
        self._sampler = sampler or TorchSampler()
        self._store = store
        self._layout = layout
        self._device = store.device
        self._masks = masks
        self._last: Step | None = None  # the step begun last, whose draws the next one may take

    def begin(self, plan: StepPlan) -> Step:
        """Compute the step; on a GPU, enqueue it. Raises what torch raises.

        No parameter asks for a gradient, so torch needs no telling not to keep one.
        """
        shares_cores = self._device.type == "cpu"  # there the model would wait for the masks' thread
        filling = None if shares_cores else self._begin_masks(plan)
        with device_errors():
            packed = pack(plan, self._layout, self._device)
            if packed.taken:
                self._put_last_draws(packed)
            hidden = self._model(packed.batch, self._store.layers)  # [R, E]
            scored = self._score(plan, packed, hidden) if packed.num_scored else ()
            filling = self._begin_masks(plan) if shares_cores else filling
            bits = None if filling is None else filling.result()
            token_ids, drawn = self._draw(plan, packed, hidden, bits)
        step = Step(plan=plan, drawing=packed.drawing, token_ids=token_ids, drawn=drawn, scored=scored)
        self._last = step
        return step

    def finish(self, handle: StepHandle) -> StepResult:
        """Wait for the step's answers, which is the one wait for the device in a step."""
        assert isinstance(handle, Step)
        with device_errors():
            token_ids: list[int] = handle.token_ids.tolist()
            drawn = [row for tile in handle.drawn for row in tile.to_rows()]
            scored = [row for tile in handle.scored for row in tile.to_rows()]
        return to_result(handle.plan, handle.drawing, token_ids, drawn, scored)

    def _put_last_draws(self, packed: PackedStep) -> None:
        """Fill in the inputs that the step before drew, which may still be on their way."""
        assert self._last is not None
        chunks = self._last.plan.chunks
        drawn = {chunks[chunk].sequence_id: row for row, chunk in enumerate(self._last.drawing)}
        for row, sequence_id in packed.taken:
            packed.batch.token_ids[row] = self._last.token_ids[drawn[sequence_id]]

    def _begin_masks(self, plan: StepPlan) -> "Future[Bits] | None":
        """Have the masks of masked draws found while the model computes; None if there are none."""
        masked = [
            chunk.sequence_id for chunk in plan.chunks if chunk.draw is not None and chunk.draw.is_masked
        ]
        if not masked:
            return None
        assert self._masks is not None
        return self._masks.fill(masked)

    def _score(self, plan: StepPlan, packed: PackedStep, hidden: Tensor) -> tuple[ScoredRows, ...]:
        """Log-probability of one given token per row, a tile of rows at a time."""
        num_top = max(chunk.num_score_top for chunk in plan.chunks)
        num_rows = packed.num_scored
        tiles = [
            slice(first, min(num_rows, first + HEAD_TILE_ROWS))
            for first in range(0, num_rows, HEAD_TILE_ROWS)
        ]
        return tuple(
            self._sampler.score(self._model.logits(hidden[tile]), packed.score_ids[tile], num_top)
            for tile in tiles
        )

    def _draw(
        self, plan: StepPlan, packed: PackedStep, hidden: Tensor, bits: Bits | None
    ) -> tuple[Tensor, tuple[ScoredRows, ...]]:
        """One token per drawing chunk, a tile of rows at a time; `bits` has a row for each masked one."""
        num_masked = 0
        token_ids: list[Tensor] = []
        scored: list[ScoredRows] = []
        for first in range(0, len(packed.drawing), HEAD_TILE_ROWS):
            chunks = [plan.chunks[index] for index in packed.drawing[first : first + HEAD_TILE_ROWS]]
            start = packed.num_scored + first
            is_part = len(chunks) < hidden.shape[0]  # seldom, and a view of all would cost for nothing
            tile = hidden[start : start + len(chunks)] if is_part else hidden
            logits = self._model.logits(tile)  # [tile, V]
            draws = [chunk.draw for chunk in chunks if chunk.draw is not None]
            first_masked, num_masked = num_masked, num_masked + sum(draw.is_masked for draw in draws)
            own_bits = (
                bits[first_masked:num_masked] if bits is not None and num_masked > first_masked else None
            )
            ids, own = self._sampler.draw(logits, draws, [chunk.stop for chunk in chunks], own_bits)
            token_ids.append(ids)
            scored += () if own is None else (own,)
        if not token_ids:
            return packed.score_ids.new_zeros(0), ()
        return token_ids[0] if len(token_ids) == 1 else torch.cat(token_ids), tuple(scored)
