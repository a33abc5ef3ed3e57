"""Log-probabilities, ranks and the most probable alternatives, of raw logits.

Only the chosen value, its rank and the top few leave the device, never a row of the vocabulary.
"""

import torch
from torch import Tensor

from engine.execution.scored_rows import ScoredRows


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
