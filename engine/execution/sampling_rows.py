"""`SamplingRows`: the parameters of a step's draws as tensors, gathered on the host.

A stage that no row needs is None there, and costs nothing. It knows no logits but for their dtype.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from engine.execution.history import (
    banned_ids,
    count_penalties,
    count_tokens,
    counts_tokens,
    repetition_run_penalties,
)
from engine.execution.logits import Entries, unset_entries
from engine.execution.philox import uniforms
from engine.plan import Draw
from engine.request import SamplingParams

Bits = npt.NDArray[np.int32]

XTC_OFF = 2.0  # no token is as probable
XTC_LANE = 1  # of the random numbers of a draw; the token itself is drawn with lane 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Edits:
    """The single entries of logits `[R, V]` that are changed before anything is drawn."""

    unset: Tensor | None  # [R, V] bool: what masks leave out
    allowed: Entries | None
    banned: Entries | None
    biases: Entries | None
    seen: Entries | None
    repeated: Entries | None
    prolonging: Entries | None

    @classmethod
    def gather(cls, draws: Sequence[Draw], bits: Bits | None, like: Tensor) -> "Edits | None":
        """What `draws` ask for, one row each; None if nothing. `bits` has a row for each masked one."""
        if not any(draw.is_masked or draw.banned_ids or draw.sampling.edits_logits for draw in draws):
            return None
        counted = [
            (row, draw.sampling, count_tokens(draw)) for row, draw in enumerate(draws) if counts_tokens(draw)
        ]
        runs = [
            (row, repetition_run_penalties(draw))
            for row, draw in enumerate(draws)
            if draw.sampling.dry_multiplier
        ]
        masked = [row for row, draw in enumerate(draws) if draw.is_masked]
        return cls(
            unset=None if bits is None else unset_entries(masked, bits, like=like),
            allowed=_with_zeros([(row, draw.sampling.allowed_ids) for row, draw in enumerate(draws)], like),
            banned=_with_zeros([(row, banned_ids(draw)) for row, draw in enumerate(draws)], like),
            biases=Entries.gather(
                [(row, *_columns(draw.sampling.logit_bias)) for row, draw in enumerate(draws)], like=like
            ),
            seen=Entries.gather(
                [
                    (row, list(counts), [sampling.repetition_penalty] * len(counts))
                    for row, sampling, counts in counted
                    if sampling.repetition_penalty != 1.0
                ],
                like=like,
            ),
            repeated=Entries.gather(
                [(row, *_columns(count_penalties(own, counts).items())) for row, own, counts in counted],
                like=like,
            ),
            prolonging=Entries.gather([(row, *_columns(found.items())) for row, found in runs], like=like),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplingRows:
    """The parameters of R rows as tensors on the device; a stage that no row needs is None.

    `random_rows` are the rows that are not greedy, and the tensors from `uniforms` to
    `xtc_threshold` have one entry for each of *those*; all rows are greedy where it is None.
    `scored_rows` are those whose log-probabilities are asked for, with `num_top` alternatives at most.
    """

    edits: Edits | None = None
    random_rows: Tensor | None = None  # [r] int64
    uniforms: Tensor | None = None  # [r] float64
    temperature: Tensor | None = None  # [r]
    top_k: Tensor | None = None  # [r] int64
    top_p: Tensor | None = None  # [r]
    min_p: Tensor | None = None  # [r]
    typical_p: Tensor | None = None  # [r]
    xtc_threshold: Tensor | None = None  # [r]
    scored_rows: Tensor | None = None  # int64
    num_top: int = 0

    @classmethod
    def gather(
        cls,
        draws: Sequence[Draw],
        positions: Sequence[int],
        *,
        like: Tensor,
        bits: Bits | None = None,
    ) -> "SamplingRows":
        """The parameters of `draws`, whose tokens will stand at `positions`, for logits like `like`.

        `bits` are the packed masks `[m, V / 32]` of those draws that are masked, in their order.
        """
        device = like.device
        edits = Edits.gather(draws, bits, like)
        scored = [row for row, draw in enumerate(draws) if draw.sampling.logprobs]
        scored_rows = torch.tensor(scored, device=device) if scored else None
        num_top = max(draw.sampling.num_top_logprobs for draw in draws)
        random = [row for row, draw in enumerate(draws) if not draw.sampling.is_greedy]
        if not random:
            return cls(edits=edits, scored_rows=scored_rows, num_top=num_top)
        params = [draws[row].sampling for row in random]
        counters = (
            [own.seed for own in params],
            [draws[row].choice for row in random],
            [positions[row] for row in random],
        )

        def column(name: str, off: float) -> Tensor | None:
            values = [getattr(own, name) for own in params]
            if all(value == off for value in values):
                return None
            return torch.tensor(values, device=device, dtype=like.dtype)

        top_k = [own.top_k for own in params]
        return cls(
            edits=edits,
            random_rows=torch.tensor(random, device=device),
            uniforms=torch.tensor(uniforms(*counters), device=device, dtype=torch.float64),
            temperature=torch.tensor([own.temperature for own in params], device=device, dtype=like.dtype),
            top_k=torch.tensor(top_k, device=device) if any(top_k) else None,
            top_p=column("top_p", 1.0),
            min_p=column("min_p", 0.0),
            typical_p=column("typical_p", 1.0),
            xtc_threshold=_xtc_threshold(params, lambda: uniforms(*counters, lane=XTC_LANE), like),
            scored_rows=scored_rows,
            num_top=num_top,
        )


def _xtc_threshold(
    params: Sequence[SamplingParams], coins: Callable[[], list[float]], like: Tensor
) -> Tensor | None:
    """Each row's threshold, switched off where its coin says so."""
    if not any(own.xtc_probability for own in params):
        return None
    thresholds = [
        own.xtc_threshold if coin < own.xtc_probability else XTC_OFF
        for own, coin in zip(params, coins(), strict=True)
    ]
    return torch.tensor(thresholds, device=like.device, dtype=like.dtype)


def _columns(pairs: Iterable[tuple[int, float]]) -> tuple[list[int], list[float]]:
    columns = dict(pairs)
    return list(columns), list(columns.values())


def _with_zeros(found: Sequence[tuple[int, Sequence[int]]], like: Tensor) -> Entries | None:
    """Entries without a value of their own."""
    return Entries.gather([(row, sorted(set(ids)), [0.0] * len(set(ids))) for row, ids in found], like=like)
