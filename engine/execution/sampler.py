"""`TorchSampler`: logits and per-row parameters in, token ids and their scores out, in plain torch."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.execution import logits as stages
from engine.execution.sampling_rows import Bits, Edits, SamplingRows
from engine.execution.scored_rows import ScoredRows
from engine.execution.scoring import score
from engine.plan import Draw


class TorchSampler:
    """Draws and scores in torch, on any device. Implements `Sampler`."""

    def draw(
        self, logits: Tensor, draws: Sequence[Draw], positions: Sequence[int], bits: Bits | None = None
    ) -> tuple[Tensor, ScoredRows | None]:
        """One token id for each of `draws`, and how probable they were for those that ask."""
        return sample(logits, SamplingRows.gather(draws, positions, like=logits, bits=bits))

    def score(self, logits: Tensor, token_ids: Tensor, num_top: int) -> ScoredRows:
        """How probable one given token of each row is."""
        return score(logits, token_ids, num_top)


def sample(logits: Tensor, rows: SamplingRows) -> tuple[Tensor, ScoredRows | None]:
    """Token ids `[R]` and, for the rows that ask, how probable they were by the raw logits.

    A greedy row takes the first of its largest logits, masked, biased and penalised. Another one
    inverts its cumulative distribution, in vocabulary order, at its uniform number; if it has no
    distribution, because nothing or no number is left of its logits, it is as a greedy one.
    """
    edited = logits if rows.edits is None else edit(logits, rows.edits)
    token_ids = edited.argmax(-1)  # [R]
    if rows.random_rows is not None:
        random = rows.random_rows
        token_ids[random] = _draw(edited[random], rows, token_ids[random])
    if rows.scored_rows is None:
        return token_ids, None
    asks = logits if len(rows.scored_rows) == len(logits) else logits[rows.scored_rows]
    return token_ids, score(asks, token_ids[rows.scored_rows], rows.num_top)


def edit(logits: Tensor, edits: Edits) -> Tensor:
    """A copy of the logits after the stages that change single entries."""
    logits = logits.clone() if edits.unset is None else logits.masked_fill(edits.unset, -torch.inf)
    if edits.allowed is not None:
        stages.mask_all_but(logits, edits.allowed)
    if edits.banned is not None:
        stages.mask(logits, edits.banned)
    if edits.biases is not None:
        stages.add_bias(logits, edits.biases)
    if edits.seen is not None:
        stages.penalize_seen(logits, edits.seen)
    if edits.repeated is not None:
        stages.subtract_penalties(logits, edits.repeated)
    if edits.prolonging is not None:
        stages.subtract_penalties(logits, edits.prolonging)
    return logits


def _draw(edited: Tensor, rows: SamplingRows, likeliest: Tensor) -> Tensor:
    assert rows.uniforms is not None
    return drawn_at(rows.uniforms, distribution(edited, rows).cumsum(-1), likeliest)


def drawn_at(uniforms: Tensor, cumulative: Tensor, likeliest: Tensor) -> Tensor:
    """The token of each row at which its cumulative distribution [R, V] passes its number of 0 .. 1.

    Where there is no distribution, because nothing or no number is left of the logits, its `likeliest`.
    """
    total = cumulative[:, -1]
    target = torch.minimum(uniforms * total, total.nextafter(torch.zeros_like(total)))
    # The first token whose cumulative probability exceeds the target: never one of probability 0.
    drawn = torch.searchsorted(cumulative, target[:, None], right=True).squeeze(-1)
    return torch.where(
        total > 0, drawn.clamp(max=cumulative.shape[-1] - 1), likeliest
    )  # a NaN is not above 0


def distribution(logits: Tensor, rows: SamplingRows) -> Tensor:
    """Probabilities `[r, V]`, float64, from which the rows that are not greedy are drawn.

    `logits` are those of these rows alone, masked, biased and penalised.
    """
    assert rows.temperature is not None
    logits = stages.scale_by_temperature(logits, rows.temperature)
    if rows.top_k is not None:
        logits = stages.keep_top_k(logits, rows.top_k)
    if rows.top_p is not None:
        logits = stages.keep_top_p(logits, rows.top_p)
    if rows.min_p is not None:
        logits = stages.keep_min_p(logits, rows.min_p)
    if rows.typical_p is not None:
        logits = stages.keep_typical(logits, rows.typical_p)
    if rows.xtc_threshold is not None:
        logits = stages.exclude_top_choices(logits, rows.xtc_threshold)
    return torch.softmax(logits, dim=-1, dtype=torch.float64)  # [r, V]
