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
from engine.errors import EngineCrashedError
from engine.execution.pack import PackedStep, pack
from engine.execution.sampler import sample
from engine.execution.sampling_rows import SamplingRows
from engine.execution.scoring import Row, ScoredRows, score, to_token_scores
from engine.plan import Chunk, StepHandle, StepPlan, StepResult
from engine.token_scores import TokenScores

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
        device: torch.device,
        masks: MaskSource | None = None,
    ) -> None:
        """Without `masks` no draw may be masked."""
        self._model = model
        self._store = store
        self._layout = layout
        self._device = device
        self._masks = masks
        self._last_draws: dict[int, Tensor] = {}  # by sequence: the token drawn in the step begun last

    def begin(self, plan: StepPlan) -> Step:
        """Compute the step; on a GPU, enqueue it. Raises what torch raises."""
        shares_cores = self._device.type == "cpu"  # there the model would wait for the masks' thread
        filling = None if shares_cores else self._begin_masks(plan)
        with torch.inference_mode(), _device_errors():
            packed = pack(plan, self._layout, self._device)
            for row, sequence_id in packed.taken:
                packed.batch.token_ids[row] = self._last_draws[sequence_id]
            hidden = self._model(packed.batch, self._store.layers)  # [R, E]
            scored = self._score(plan, packed, hidden[: packed.num_scored])
            filling = self._begin_masks(plan) if shares_cores else filling
            bits = None if filling is None else filling.result()
            token_ids, drawn = self._draw(plan, packed, hidden[packed.num_scored :], bits)
        self._last_draws = {
            plan.chunks[chunk].sequence_id: token_ids[row] for row, chunk in enumerate(packed.drawing)
        }
        return Step(plan=plan, drawing=packed.drawing, token_ids=token_ids, drawn=drawn, scored=scored)

    def finish(self, handle: StepHandle) -> StepResult:
        """Wait for the step's answers, which is the one wait for the device in a step."""
        assert isinstance(handle, Step)
        with _device_errors():
            token_ids: list[int] = handle.token_ids.tolist()
            drawn = [row for tile in handle.drawn for row in tile.to_rows()]
            scored = [row for tile in handle.scored for row in tile.to_rows()]
        tokens = dict(zip(handle.drawing, token_ids, strict=True))
        chunks = handle.plan.chunks
        return StepResult(
            token_ids=tuple((tokens[index],) if index in tokens else () for index in range(len(chunks))),
            logprobs=_shares(drawn, [_num_drawn(chunk) for chunk in chunks]),
            scores=_shares(scored, [(len(chunk.score_ids), chunk.num_score_top) for chunk in chunks]),
        )

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
        if not packed.num_scored:
            return ()
        num_top = max(chunk.num_score_top for chunk in plan.chunks)
        tiles = [slice(first, first + HEAD_TILE_ROWS) for first in range(0, len(hidden), HEAD_TILE_ROWS)]
        return tuple(
            score(self._model.logits(hidden[tile]), packed.score_ids[tile], num_top) for tile in tiles
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
            logits = self._model.logits(hidden[first : first + len(chunks)])  # [tile, V]
            draws = [chunk.draw for chunk in chunks if chunk.draw is not None]
            first_masked, num_masked = num_masked, num_masked + sum(draw.is_masked for draw in draws)
            own_bits = (
                bits[first_masked:num_masked] if bits is not None and num_masked > first_masked else None
            )
            positions = [chunk.stop for chunk in chunks]
            rows = SamplingRows.gather(draws, positions, like=logits, bits=own_bits)
            ids, own = sample(logits, rows)
            token_ids.append(ids)
            scored += () if own is None else (own,)
        if not token_ids:
            return packed.score_ids.new_zeros(0), ()
        return torch.cat(token_ids), tuple(scored)


def _num_drawn(chunk: Chunk) -> tuple[int, int]:
    """How many scored draws a chunk has, and with how many alternatives."""
    if chunk.draw is None or not chunk.draw.sampling.logprobs:
        return 0, 0
    return 1, chunk.draw.sampling.num_top_logprobs


def _shares(rows: Sequence[Row], sizes: Sequence[tuple[int, int]]) -> tuple[TokenScores, ...]:
    """Each chunk's rows of all chunks' rows; `sizes` are (rows, alternatives) of each."""
    shares, first = [], 0
    for num_rows, num_top in sizes:
        shares.append(to_token_scores(rows[first : first + num_rows], num_top))
        first += num_rows
    return tuple(shares)


class _device_errors:  # noqa: N801 - reads as a function at its call sites
    """Turns an error after which the device is of no use into EngineCrashedError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, torch.AcceleratorError):
            raise EngineCrashedError(f"the device failed: {error}") from error
