"""`ModelRunner`: turns a StepPlan into a StepResult on one device: pack, forward, sample.

It knows no queue and no request: what it is told about a sequence is in the plan.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.cache.layout import CacheLayout
from engine.cache.store import CacheStore
from engine.execution.device_errors import device_errors
from engine.execution.pack import PackedStep, pack
from engine.execution.row_answers import MaskSource, RowAnswers, Sampler, to_result
from engine.execution.sampler import TorchSampler
from engine.execution.scored_rows import ScoredRows
from engine.plan import StepHandle, StepPlan, StepResult


class Model(Protocol):
    """What the runner asks of a decoder."""

    def __call__(self, batch: Batch, caches: tuple[LayerCache, ...]) -> Tensor:
        """Hidden states `[R, E]` of the wanted rows, the final norm applied."""
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[R, V]` of hidden states, in at least float32."""
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
        sampler: Sampler[Tensor] | None = None,
    ) -> None:
        """Without `masks` no draw may be masked; `sampler` is None for the one in torch."""
        self._model = model
        self._answers = RowAnswers(model.logits, sampler or TorchSampler(), masks)
        self._store = store
        self._layout = layout
        self._device = store.device
        self._last: Step | None = None  # the step begun last, whose draws the next one may take

    def begin(self, plan: StepPlan) -> Step:
        """Compute the step; on a GPU, enqueue it. Raises what torch raises.

        No parameter asks for a gradient, so torch needs no telling not to keep one.
        """
        answers = self._answers
        shares_cores = self._device.type == "cpu"  # there the model would wait for the masks' thread
        filling = None if shares_cores else answers.begin_masks(plan)
        with device_errors():
            packed = pack(plan, self._layout, self._device)
            if packed.taken:
                self._put_last_draws(packed)
            hidden = self._model(packed.batch, self._store.layers)  # [R, E]
            scored = answers.score(plan, packed.score_ids, hidden) if packed.num_scored else ()
            filling = answers.begin_masks(plan) if shares_cores else filling
            bits = None if filling is None else filling.result()
            drawing = [plan.chunks[index] for index in packed.drawing]
            tiles, drawn = answers.draw(drawing, packed.num_scored, hidden, bits)
            token_ids = torch.cat(tiles) if tiles else packed.score_ids.new_empty(0)
        step = Step(plan=plan, drawing=packed.drawing, token_ids=token_ids, drawn=drawn, scored=scored)
        self._last = step
        return step

    def finish(self, handle: StepHandle) -> StepResult:
        """Wait for the step's answers, which is the one wait for the device in a step."""
        assert isinstance(handle, Step)
        with device_errors():
            return to_result(handle.plan, handle.token_ids.tolist(), handle.drawn, handle.scored)

    def _put_last_draws(self, packed: PackedStep) -> None:
        """Fill in the inputs that the step before drew, which may still be on their way."""
        assert self._last is not None
        chunks = self._last.plan.chunks
        drawn = {chunks[chunk].sequence_id: row for row, chunk in enumerate(self._last.drawing)}
        for row, sequence_id in packed.taken:
            packed.batch.token_ids[row] = self._last.token_ids[drawn[sequence_id]]
