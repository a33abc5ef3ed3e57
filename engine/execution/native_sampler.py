"""`NativeSampler`: draws and scores with the native kernels, and edits logits in numpy where a row asks.

It gives what `TorchSampler` gives, without an array for any parameter.
"""

from collections.abc import Sequence

import numpy as np

from engine.execution.native_edits import edited
from engine.execution.row_answers import Bits
from engine.execution.scored_rows import ScoredRows
from engine.kernels.cpu.memory import Floats, Integers
from engine.kernels.cpu.sampling import MAX_TOP_K, ROW, NativeSampling
from engine.plan import Draw

GREEDY_ROW = ROW.pack(0, 0, 0, 0, 0.0, 1.0, 0.0, 1.0, 0.0, 0.0)

LEAST_XTC_THRESHOLD = 1e-37
"""Above 0 in single precision too, so that no token of probability 0 is among the top choices."""


class NativeSampler:
    """Implements `Sampler` for arrays."""

    def __init__(self, kernels: NativeSampling) -> None:
        self._kernels = kernels

    def draw(
        self, logits: Floats, draws: Sequence[Draw], positions: Sequence[int], bits: Bits | None = None
    ) -> tuple[Integers, ScoredRows | None]:
        """One token id for each of `draws`, and how probable they were for those that ask."""
        rows = b"".join(map(draw_row, draws, positions))
        token_ids = self._kernels.draw(edited(logits, draws, bits), rows)
        scored = [row for row, draw in enumerate(draws) if draw.sampling.logprobs]
        if not scored:
            return token_ids, None
        num_top = max(draw.sampling.num_top_logprobs for draw in draws)
        if len(scored) == len(draws):
            return token_ids, self.score(logits, token_ids, num_top)
        asking = np.array(scored)
        return token_ids, ScoredRows(*self._kernels.score(logits, asking, token_ids[asking], num_top))

    def score(self, logits: Floats, token_ids: Integers, num_top: int) -> ScoredRows:
        """How probable one given token of each row is."""
        return ScoredRows(*self._kernels.score(logits, None, token_ids, num_top))


def draw_row(draw: Draw, position: int) -> bytes:
    """How the token at `position` is drawn, in the words of the library."""
    own = draw.sampling
    if own.is_greedy:
        return GREEDY_ROW
    return ROW.pack(
        own.seed,
        position,
        draw.choice,
        min(own.top_k, MAX_TOP_K),
        own.temperature,
        own.top_p,
        own.min_p,
        own.typical_p,
        own.xtc_probability,
        max(own.xtc_threshold, LEAST_XTC_THRESHOLD),
    )
