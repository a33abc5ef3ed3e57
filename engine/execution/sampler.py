"""`Sampler`: logits and per-row parameters in, token ids and log-probabilities out. Stateless."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from engine.execution.logits import keep_top_k, keep_top_p, scale_by_temperature
from engine.execution.philox import uniforms
from engine.plan import Draw


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRows:
    """The parameters of R rows as tensors on the device; a stage that no row needs is None.

    `random_rows` are the rows that are not greedy, and the other tensors have one entry for each
    of *those*; all rows are greedy where it is None.
    """

    random_rows: Tensor | None  # [r] int64
    uniforms: Tensor | None  # [r] float64
    temperature: Tensor | None  # [r]
    top_k: Tensor | None  # [r] int64
    top_p: Tensor | None  # [r]
    needs_logprobs: bool

    @classmethod
    def gather(
        cls, draws: Sequence[Draw], positions: Sequence[int], *, device: torch.device, dtype: torch.dtype
    ) -> "SamplingRows":
        """The parameters of `draws`, whose tokens will stand at `positions`."""
        rows = [row for row, draw in enumerate(draws) if not draw.sampling.is_greedy]
        needs_logprobs = any(draw.sampling.logprobs for draw in draws)
        if not rows:
            return cls(
                random_rows=None,
                uniforms=None,
                temperature=None,
                top_k=None,
                top_p=None,
                needs_logprobs=needs_logprobs,
            )
        params = [draws[row].sampling for row in rows]
        numbers = uniforms(
            [own.seed for own in params],
            [draws[row].choice for row in rows],
            [positions[row] for row in rows],
        )
        top_k = [own.top_k for own in params]
        top_p = [own.top_p for own in params]
        return cls(
            random_rows=torch.tensor(rows, device=device),
            uniforms=torch.tensor(numbers, device=device, dtype=torch.float64),
            temperature=torch.tensor([own.temperature for own in params], device=device, dtype=dtype),
            top_k=torch.tensor(top_k, device=device) if any(top_k) else None,
            top_p=torch.tensor(top_p, device=device, dtype=dtype) if min(top_p) < 1.0 else None,
            needs_logprobs=needs_logprobs,
        )


def sample(logits: Tensor, rows: SamplingRows) -> tuple[Tensor, Tensor | None]:
    """Token ids `[R]` and, where any row asks, the log-probabilities of the raw logits `[R]`.

    A greedy row takes the first of its largest logits. Another one inverts its cumulative
    distribution, in vocabulary order, at its uniform number.
    """
    token_ids = logits.argmax(-1)  # [R]
    if rows.random_rows is not None:
        token_ids[rows.random_rows] = _draw(logits[rows.random_rows], rows)
    return token_ids, token_logprobs(logits, token_ids) if rows.needs_logprobs else None


def token_logprobs(logits: Tensor, token_ids: Tensor) -> Tensor:
    """Log-probability `[R]` of one token per row."""
    return logits.gather(-1, token_ids[:, None]).squeeze(-1) - torch.logsumexp(logits, dim=-1)


def _draw(logits: Tensor, rows: SamplingRows) -> Tensor:
    assert rows.temperature is not None
    assert rows.uniforms is not None
    logits = scale_by_temperature(logits, rows.temperature)
    if rows.top_k is not None:
        logits = keep_top_k(logits, rows.top_k)
    if rows.top_p is not None:
        logits = keep_top_p(logits, rows.top_p)
    cumulative = torch.softmax(logits, dim=-1, dtype=torch.float64).cumsum(-1)  # [r, V]
    total = cumulative[:, -1]
    target = torch.minimum(rows.uniforms * total, total.nextafter(torch.zeros_like(total)))
    # The first token whose cumulative probability exceeds the target: never one of probability 0.
    return torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1)
