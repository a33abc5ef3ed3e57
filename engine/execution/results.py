"""From what a step left on the host to its `StepResult`; and what an error of the device means.

It knows no model and no tensors.
"""

from collections.abc import Callable, Sequence

import torch

from engine.errors import EngineCrashedError
from engine.execution.scoring import Row, to_token_scores
from engine.plan import Chunk, StepPlan, StepResult
from engine.token_scores import NO_SCORES, TokenScores


def to_result(
    plan: StepPlan,
    drawing: Sequence[int],
    token_ids: Sequence[int],
    drawn: Sequence[Row],
    scored: Sequence[Row],
) -> StepResult:
    """The result of `plan`: `token_ids` of its chunks `drawing`, and the rows of those that asked for scores."""
    tokens: list[tuple[int, ...]] = [()] * len(plan.chunks)
    for index, token_id in zip(drawing, token_ids, strict=True):
        tokens[index] = (token_id,)
    return StepResult(
        token_ids=tuple(tokens),
        logprobs=_shares(drawn, plan.chunks, _num_drawn),
        scores=_shares(scored, plan.chunks, _num_scored),
    )


def _num_drawn(chunk: Chunk) -> tuple[int, int]:
    """How many scored draws a chunk has, and with how many alternatives."""
    if chunk.draw is None or not chunk.draw.sampling.logprobs:
        return 0, 0
    return 1, chunk.draw.sampling.num_top_logprobs


def _num_scored(chunk: Chunk) -> tuple[int, int]:
    """How many scored prompt tokens a chunk has, and with how many alternatives."""
    return len(chunk.score_ids), chunk.num_score_top


def _shares(
    rows: Sequence[Row], chunks: Sequence[Chunk], size_of: Callable[[Chunk], tuple[int, int]]
) -> tuple[TokenScores, ...]:
    """Each chunk's rows of all chunks' rows; `size_of` tells (rows, alternatives) of one."""
    if not rows:
        return (NO_SCORES,) * len(chunks)
    shares, first = [], 0
    for chunk in chunks:
        num_rows, num_top = size_of(chunk)
        shares.append(to_token_scores(rows[first : first + num_rows], num_top))
        first += num_rows
    return tuple(shares)


class device_errors:  # noqa: N801 - reads as a function at its call sites
    """Turns an error after which the device is of no use into EngineCrashedError."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, torch.AcceleratorError):
            raise EngineCrashedError(f"the device failed: {error}") from error
