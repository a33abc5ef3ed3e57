"""`RowAnswers`: what is asked of a step's wanted rows, worked out a tile of rows at a time; and `to_result`.

It knows hidden states and what the plan asks, neither how the step was packed nor what computed it, and
not whether rows are tensors or arrays.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Generic, Protocol, Self, TypeVar

import numpy as np
import numpy.typing as npt

from engine.execution.scored_rows import Column, Row, ScoredRows, to_token_scores
from engine.plan import Chunk, Draw, StepPlan, StepResult
from engine.token_scores import NO_SCORES, TokenScores

# Rows of logits that exist at once: a long scored prompt costs no vocabulary-sized memory per token.
HEAD_TILE_ROWS = 64

Bits = npt.NDArray[np.int32]


class MaskSource(Protocol):
    """Where the masks of constrained sequences come from."""

    def fill(self, sequence_ids: Sequence[int]) -> "Future[Bits]":
        """Begin to find the packed masks `[rows, V / 32]` of these sequences' next draws."""
        ...


class Rows(Protocol):
    """A tensor or an array, as far as it is cut into tiles here."""

    def __len__(self) -> int:
        """Its rows."""
        ...

    def __getitem__(self, rows: slice, /) -> Self:
        """Some of them."""
        ...


Array = TypeVar("Array", bound=Rows)
Array_contra = TypeVar("Array_contra", bound=Rows, contravariant=True)


class Sampler(Protocol[Array_contra]):
    """Stateless: the same row gives the same answer in any company."""

    def draw(
        self, logits: Array_contra, draws: Sequence[Draw], positions: Sequence[int], bits: Bits | None = None
    ) -> tuple[Column, ScoredRows | None]:
        """Token ids [R] of logits [R, V], and how probable they were for the rows that ask.

        The tokens will stand at `positions`; `bits` are the packed masks [m, V / 32] of the masked draws.
        """
        ...

    def score(self, logits: Array_contra, token_ids: Column, num_top: int) -> ScoredRows:
        """How probable one given token of each row is, and the `num_top` most probable ones there."""
        ...


class RowAnswers(Generic[Array]):
    """Scores and draws from hidden states `[R, E]`: of the scored rows first, then of the drawn ones."""

    def __init__(
        self, logits: Callable[[Array], Array], sampler: Sampler[Array], masks: MaskSource | None
    ) -> None:
        """`logits` gives `[R, V]` of hidden states; without `masks` no draw may be masked."""
        self._logits = logits
        self._sampler = sampler
        self._masks = masks

    def begin_masks(self, plan: StepPlan) -> "Future[Bits] | None":
        """Have the masks of masked draws found in the background; None if there are none."""
        masked = [
            chunk.sequence_id for chunk in plan.chunks if chunk.draw is not None and chunk.draw.is_masked
        ]
        if not masked:
            return None
        assert self._masks is not None
        return self._masks.fill(masked)

    def score(self, plan: StepPlan, score_ids: Column, hidden: Array) -> tuple[ScoredRows, ...]:
        """Log-probability of one given token per row, for the first rows."""
        num_top = max(chunk.num_score_top for chunk in plan.chunks)
        num_rows = len(score_ids)
        tiles = [
            slice(first, min(num_rows, first + HEAD_TILE_ROWS))
            for first in range(0, num_rows, HEAD_TILE_ROWS)
        ]
        return tuple(
            self._sampler.score(self._logits(hidden[tile]), score_ids[tile], num_top) for tile in tiles
        )

    def draw(
        self, chunks: Sequence[Chunk], first_row: int, hidden: Array, bits: Bits | None
    ) -> tuple[tuple[Column, ...], tuple[ScoredRows, ...]]:
        """One token for each of `chunks`, from row `first_row` on; `bits` has a row for each masked one.

        Both answers come in tiles of rows.
        """
        num_masked = 0
        token_ids: list[Column] = []
        scored: list[ScoredRows] = []
        for first in range(0, len(chunks), HEAD_TILE_ROWS):
            own_chunks = chunks[first : first + HEAD_TILE_ROWS]
            start = first_row + first
            is_part = len(own_chunks) < len(hidden)  # seldom, and a view of all would cost for nothing
            logits = self._logits(hidden[start : start + len(own_chunks)] if is_part else hidden)  # [tile, V]
            draws = [chunk.draw for chunk in own_chunks if chunk.draw is not None]
            first_masked, num_masked = num_masked, num_masked + sum(draw.is_masked for draw in draws)
            own_bits = (
                bits[first_masked:num_masked] if bits is not None and num_masked > first_masked else None
            )
            ids, own = self._sampler.draw(logits, draws, [chunk.stop for chunk in own_chunks], own_bits)
            token_ids.append(ids)
            scored += () if own is None else (own,)
        return tuple(token_ids), tuple(scored)


def to_result(
    plan: StepPlan,
    token_ids: Sequence[int],
    drawn: Sequence[ScoredRows] = (),
    scored: Sequence[ScoredRows] = (),
) -> StepResult:
    """The step's result from the drawing chunks' tokens and the tiles of scores. Waits for the device."""
    chunks = plan.chunks
    drawn_rows = [row for tile in drawn for row in tile.to_rows()]
    scored_rows = [row for tile in scored for row in tile.to_rows()]
    ids = iter(token_ids)
    return StepResult(
        token_ids=tuple([() if chunk.draw is None else (next(ids),) for chunk in chunks]),
        logprobs=_shares(drawn_rows, chunks, _num_drawn),
        scores=_shares(scored_rows, chunks, _num_scored),
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
