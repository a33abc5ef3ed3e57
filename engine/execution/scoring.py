"""Log-probabilities, ranks and the most probable alternatives, of raw logits.

Only the chosen value, its rank and the top few leave the device, never a row of the vocabulary.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engine.token_scores import NO_SCORES, TokenScores

Row = tuple[float, int, list[int], list[float]]


class ScoredRows(NamedTuple):
    """How probable one token of each of R rows is, and which k tokens are the most probable there."""

    logprobs: Tensor  # [R]
    ranks: Tensor  # [R] int64
    top_ids: Tensor  # [R, k] int64
    top_logprobs: Tensor  # [R, k], descending

    def to_rows(self) -> list[Row]:
        """One tuple per row, on the host. Waits for the device."""
        return list(zip(*(column.tolist() for column in self), strict=True))


def score(logits: Tensor, token_ids: Tensor, num_top: int) -> ScoredRows:
    """Score one token per row, with `num_top` alternatives, or as many as there are.

    log p = logit - log(sum(exp(logits))); a token's rank is one more than the number of tokens
    more probable than it. The most probable token has the same number whether it was chosen or is an alternative.
    """
    log_total = torch.logsumexp(logits, dim=-1, keepdim=True)  # [R, 1]
    chosen = logits.gather(-1, token_ids[:, None])  # [R, 1]
    values, top_ids = torch.topk(logits, min(num_top, logits.shape[-1]), dim=-1)  # [R, k]
    return ScoredRows(
        logprobs=(chosen - log_total).squeeze(-1),
        ranks=(logits > chosen).sum(-1) + 1,
        top_ids=top_ids,
        top_logprobs=values - log_total,
    )


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
