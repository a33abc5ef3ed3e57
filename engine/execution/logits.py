"""The stages between logits and the distribution a token is drawn from, in their order.

    temperature · top-k · top-p

A stage is a function of logits `[R, V]` and per-row parameters; one that no row asks for is not
run. Rows never influence each other.
"""

import torch
from torch import Tensor

# Most probable entries looked at before a whole row is sorted for top-p.
NUM_HEAD = 1024


def scale_by_temperature(logits: Tensor, temperature: Tensor) -> Tensor:
    """Logits less their row's largest, divided by the row's temperature `[R]`, which is above 0.

    The shift changes no probability, and keeps the quotient finite at the top for any temperature.
    """
    return (logits - logits.amax(-1, keepdim=True)) / temperature[:, None]  # [R, V]


def keep_top_k(logits: Tensor, top_k: Tensor) -> Tensor:
    """Mask all but each row's `top_k` largest logits; 0 keeps all. Equals of the k-th stay too.

    Source: Fan et al. 2018, Hierarchical neural story generation (arXiv 1805.04833).
    """
    largest = int(top_k.max())
    values = torch.topk(logits, min(largest, logits.shape[-1]), dim=-1).values  # [R, k]
    last = (top_k.clamp(1, values.shape[-1]) - 1)[:, None]
    threshold = values.gather(-1, last)  # [R, 1]
    return logits.masked_fill((logits < threshold) & (top_k > 0)[:, None], -torch.inf)


def keep_top_p(logits: Tensor, top_p: Tensor) -> Tensor:
    """Mask all but the fewest most probable tokens whose probabilities sum to `top_p` `[R]` or more.

    Equals of the least probable one that stays, stay too. Rows with top_p 1 are left as they are.
    Source: Holtzman et al. 2019, The curious case of neural text degeneration (arXiv 1904.09751).
    """
    log_total = torch.logsumexp(logits, dim=-1, keepdim=True)  # [R, 1]
    num_head = min(NUM_HEAD, logits.shape[-1])
    values = torch.topk(logits, num_head, dim=-1).values  # [R, k]
    mass = torch.exp(values - log_total).cumsum(-1)
    if bool((mass[:, -1] < top_p).any()):
        values = torch.sort(logits, dim=-1, descending=True).values  # [R, V]
        mass = torch.exp(values - log_total).cumsum(-1)
    num_before = (mass < top_p[:, None]).sum(-1, keepdim=True)  # tokens whose sum falls short
    threshold = values.gather(-1, num_before.clamp(max=values.shape[-1] - 1))
    return logits.masked_fill((logits < threshold) & (top_p < 1.0)[:, None], -torch.inf)
