"""`NativeRunner`: turns a StepPlan into a StepResult by the native kernels, on the CPU.

A step whose rows are only drawn from is a single call into the library; only what asks for more,
such as scores, masks or penalties, sees hidden states and logits as arrays. The results of both ways
are the same to the last bit. It computes while it begins, since there is no device to wait for.
"""

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from engine.execution.native_sampler import NativeSampler, draw_row
from engine.execution.row_answers import MaskSource, RowAnswers, to_result
from engine.execution.step_words import StepWords
from engine.kernels.cpu.memory import Floats
from engine.plan import Chunk, Draw, StepHandle, StepPlan, StepResult
from engine.token_scores import NO_SCORES

NOTHING_DRAWN: Mapping[int, int] = {}


class NativeModel(Protocol):
    """What the runner asks of the model: a step in words, `num_wanted` rows in it, positions below `stop`."""

    def hidden(self, words: "array[int]", num_wanted: int, stop: int) -> Floats:
        """Hidden states `[R, E]` of the wanted rows, the final norm applied."""
        ...

    def draw(self, words: "array[int]", num_wanted: int, stop: int, draws: bytes) -> list[int]:
        """One token for each wanted row; `draws` are rows of `draw_row`."""
        ...

    def logits(self, hidden: Floats) -> Floats:
        """Logits `[R, V]` of hidden states."""
        ...


@dataclass(frozen=True, slots=True)
class ComputedStep:
    """A step that is done."""

    plan: StepPlan
    result: StepResult


class NativeRunner:
    """A model with its cache, and the sampler that goes with it. Implements `Runner`."""

    def __init__(
        self, model: NativeModel, sampler: NativeSampler, *, masks: MaskSource | None = None
    ) -> None:
        """Without `masks` no draw may be masked."""
        self._model = model
        self._answers = RowAnswers(model.logits, sampler, masks)
        self._last: ComputedStep | None = None  # whose draws the next step may take

    def begin(self, plan: StepPlan) -> ComputedStep:
        """Compute the step."""
        chunks = plan.chunks
        step = StepWords.of(plan, self._last_draws(chunks))
        drawing = [chunk for chunk in chunks if chunk.draw is not None]
        is_plain = not step.num_scored and all(_is_plain(chunk.draw) for chunk in drawing)
        result = self._draw(plan, drawing, step) if is_plain else self._answer(plan, drawing, step)
        self._last = ComputedStep(plan, result)
        return self._last

    def finish(self, handle: StepHandle) -> StepResult:
        """What the step found."""
        assert isinstance(handle, ComputedStep)
        return handle.result

    def _last_draws(self, chunks: Sequence[Chunk]) -> Mapping[int, int]:
        """What the step before drew for each sequence, if any chunk takes it."""
        if self._last is None or not any(chunk.takes_last_draw for chunk in chunks):
            return NOTHING_DRAWN
        drawn = zip(self._last.plan.chunks, self._last.result.token_ids, strict=True)
        return {chunk.sequence_id: token_ids[-1] for chunk, token_ids in drawn if token_ids}

    def _draw(self, plan: StepPlan, drawing: Sequence[Chunk], step: StepWords) -> StepResult:
        """All in one call."""
        rows = b"".join([draw_row(chunk.draw, chunk.stop) for chunk in drawing if chunk.draw is not None])
        drawn = self._model.draw(step.words, step.num_wanted, step.stop, rows)
        nothing = (NO_SCORES,) * len(plan.chunks)
        if len(drawing) == len(plan.chunks):
            return StepResult(token_ids=tuple(zip(drawn, strict=True)), logprobs=nothing, scores=nothing)
        return to_result(plan, drawn)

    def _answer(self, plan: StepPlan, drawing: Sequence[Chunk], step: StepWords) -> StepResult:
        """Hidden states first, then what is asked of them."""
        answers, num_scored = self._answers, step.num_scored
        hidden = self._model.hidden(step.words, step.num_wanted, step.stop)  # [R, E]
        filling = answers.begin_masks(plan)  # after the model, whose threads have the cores
        score_ids = [token_id for chunk in plan.chunks for token_id in chunk.score_ids]
        scored = answers.score(plan, np.array(score_ids, dtype=np.int64), hidden) if num_scored else ()
        bits = None if filling is None else filling.result()
        tiles, drawn = answers.draw(drawing, num_scored, hidden, bits)
        return to_result(plan, [token_id for tile in tiles for token_id in tile.tolist()], drawn, scored)


def _is_plain(draw: Draw | None) -> bool:
    """Whether a row's logits are of no interest but for the token drawn from them."""
    assert draw is not None
    sampling = draw.sampling
    return not (draw.is_masked or draw.banned_ids or sampling.edits_logits or sampling.logprobs)
