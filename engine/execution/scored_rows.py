"""`ScoredRows`: what was found of some rows' log-probabilities, wherever it was worked out, and its way out."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from engine.token_scores import NO_SCORES, TokenScores

Row = tuple[float, int, list[int], list[float]]


Column = Any  # a tensor, or an array where there is no torch; all that is asked of it here is `tolist`


class ScoredRows(NamedTuple):
    """How probable one token of each of R rows is, and which k tokens are the most probable there."""

    logprobs: Column  # [R]
    ranks: Column  # [R] int64
    top_ids: Column  # [R, k] int64
    top_logprobs: Column  # [R, k], descending

    def to_rows(self) -> list[Row]:
        """One tuple per row, on the host. Waits for the device."""
        return list(zip(*(column.tolist() for column in self), strict=True))


def to_token_scores(rows: Sequence[Row], num_top: int) -> TokenScores:
    """Consecutive tokens of one sequence, each with its first `num_top` alternatives."""
    if not rows:
        return NO_SCORES
    return TokenScores(
        logprobs=tuple(row[0] for row in rows),
        ranks=tuple(row[1] for row in rows),
        top_ids=tuple(token_id for row in rows for token_id in row[2][:num_top]),
        top_logprobs=tuple(logprob for row in rows for logprob in row[3][:num_top]),
    )
