"""`StepWords`: a plan as one flat run of integers, which is how the native kernels read a step.

    S, R, R wanted rows, then for each of the S chunks
    first position, number of tokens, token ids,
    and for each cache group: number of the first block, number of blocks, block ids

Wanted are first the scored rows, then the drawn ones. Nothing here is a tensor: of one row's decode
step the tensors of a `Batch` alone would take as long as planning and committing it.
"""

from array import array
from collections.abc import Mapping
from dataclasses import dataclass

from engine.plan import Chunk, StepPlan


@dataclass(frozen=True, slots=True)
class StepWords:
    """The words, how many rows are wanted and how many of these scored, and the bound of all positions."""

    words: "array[int]"
    num_wanted: int
    num_scored: int
    stop: int

    @classmethod
    def of(cls, plan: StepPlan, last_draws: Mapping[int, int]) -> "StepWords":
        """The words of `plan`; `last_draws` has the tokens that the step before drew, by sequence."""
        chunks: list[int] = []
        scored: list[int] = []
        drawn: list[int] = []
        row = last = 0
        for chunk in plan.chunks:
            start, stop = chunk.start, chunk.stop
            chunks += (start, stop - start)
            chunks += chunk.token_ids
            if chunk.takes_last_draw:
                chunks.append(last_draws[chunk.sequence_id])
            for first_block, block_ids in chunk.tables:
                chunks += (first_block, len(block_ids))
                chunks += block_ids
            if chunk.score_ids:
                scored += _scored_rows(chunk, row)
            row += stop - start
            if chunk.draw is not None:
                drawn.append(row - 1)
            last = max(last, stop)
        wanted = scored + drawn
        words = array("q", [len(plan.chunks), len(wanted), *wanted, *chunks])
        return cls(words, len(wanted), len(scored), last)


def _scored_rows(chunk: Chunk, row: int) -> range:
    """The rows of its scores, the chunk's own first row being `row`."""
    first = row + chunk.score_from - chunk.start
    return range(first, first + len(chunk.score_ids))
