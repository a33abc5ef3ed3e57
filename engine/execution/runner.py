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
from engine.errors import EngineCrashedError
from engine.execution.pack import PackedStep, pack
from engine.execution.sampler import SamplingRows, sample, token_logprobs
from engine.plan import StepHandle, StepPlan, StepResult

# Rows of logits that exist at once: a long scored prompt costs no vocabulary-sized memory per token.
HEAD_TILE_ROWS = 64


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
    logprobs: Tensor | None  # [R]
    scores: Tensor  # [number of scored rows]


class ModelRunner:
    """A model, its cache and a device. Implements `Runner`."""

    def __init__(self, model: Model, store: CacheStore, layout: CacheLayout, device: torch.device) -> None:
        self._model = model
        self._store = store
        self._layout = layout
        self._device = device
        self._last_draws: dict[int, Tensor] = {}  # by sequence: the token drawn in the step begun last

    def begin(self, plan: StepPlan) -> Step:
        """Compute the step; on a GPU, enqueue it. Raises what torch raises."""
        with torch.inference_mode(), _device_errors():
            packed = pack(plan, self._layout, self._device)
            for row, sequence_id in packed.taken:
                packed.batch.token_ids[row] = self._last_draws[sequence_id]
            hidden = self._model(packed.batch, self._store.layers)  # [R, E]
            scores = self._score(hidden[: packed.num_scored], packed.score_ids)
            token_ids, logprobs = self._draw(plan, packed, hidden[packed.num_scored :])
        self._last_draws = {
            plan.chunks[chunk].sequence_id: token_ids[row] for row, chunk in enumerate(packed.drawing)
        }
        return Step(plan=plan, drawing=packed.drawing, token_ids=token_ids, logprobs=logprobs, scores=scores)

    def finish(self, handle: StepHandle) -> StepResult:
        """Wait for the step's answers, which is the one wait for the device in a step."""
        assert isinstance(handle, Step)
        with _device_errors():
            token_ids: list[int] = handle.token_ids.tolist()
            logprobs: list[float] = [] if handle.logprobs is None else handle.logprobs.tolist()
            scores: list[float] = handle.scores.tolist()
        chunks = handle.plan.chunks
        drawn: list[tuple[int, ...]] = [()] * len(chunks)
        chosen: list[tuple[float, ...]] = [()] * len(chunks)
        for row, index in enumerate(handle.drawing):
            drawn[index] = (token_ids[row],)
            draw = chunks[index].draw
            if draw is not None and draw.sampling.logprobs:
                chosen[index] = (logprobs[row],)
        scored: list[tuple[float, ...]] = []
        for chunk in chunks:
            scored.append(tuple(scores[: len(chunk.score_ids)]))
            del scores[: len(chunk.score_ids)]
        return StepResult(token_ids=tuple(drawn), logprobs=tuple(chosen), scores=tuple(scored))

    def _score(self, hidden: Tensor, score_ids: Tensor) -> Tensor:
        """Log-probability of one given token per row, a tile of rows at a time."""
        tiles = [slice(first, first + HEAD_TILE_ROWS) for first in range(0, len(score_ids), HEAD_TILE_ROWS)]
        scores = [token_logprobs(self._model.logits(hidden[tile]), score_ids[tile]) for tile in tiles]
        return torch.cat(scores) if scores else hidden.new_zeros(0)

    def _draw(self, plan: StepPlan, packed: PackedStep, hidden: Tensor) -> tuple[Tensor, Tensor | None]:
        """One token per drawing chunk, a tile of rows at a time."""
        token_ids: list[Tensor] = []
        logprobs: list[Tensor] = []
        for first in range(0, len(packed.drawing), HEAD_TILE_ROWS):
            chunks = [plan.chunks[index] for index in packed.drawing[first : first + HEAD_TILE_ROWS]]
            logits = self._model.logits(hidden[first : first + len(chunks)])  # [tile, V]
            rows = SamplingRows.gather(
                [chunk.draw for chunk in chunks if chunk.draw is not None],
                [chunk.stop for chunk in chunks],
                device=self._device,
                dtype=logits.dtype,
            )
            ids, chosen = sample(logits, rows)
            token_ids.append(ids)
            logprobs.append(logits.new_zeros(len(chunks)) if chosen is None else chosen)
        if not token_ids:
            return packed.score_ids.new_zeros(0), None
        return torch.cat(token_ids), torch.cat(logprobs)


class _device_errors:  # noqa: N801 - reads as a function at its call sites
    """Turns an error after which the device is of no use into EngineCrashedError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, torch.AcceleratorError):
            raise EngineCrashedError(f"the device failed: {error}") from error
