"""A sampler of arrays for whoever has tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from engine.execution.native_sampler import NativeSampler
from engine.execution.row_answers import Bits
from engine.execution.scored_rows import ScoredRows
from engine.plan import Draw


class OnTensors:
    """Implements `Sampler` for float32 tensors on the CPU."""

    def __init__(self, sampler: NativeSampler) -> None:
        self._sampler = sampler

    def draw(
        self, logits: Tensor, draws: Sequence[Draw], positions: Sequence[int], bits: Bits | None = None
    ) -> tuple[Tensor, ScoredRows | None]:
        token_ids, scored = self._sampler.draw(logits.numpy(), draws, positions, bits)
        return torch.from_numpy(token_ids), None if scored is None else _tensors(scored)

    def score(self, logits: Tensor, token_ids: Tensor, num_top: int) -> ScoredRows:
        return _tensors(self._sampler.score(logits.numpy(), token_ids.numpy(), num_top))


def _tensors(scored: ScoredRows) -> ScoredRows:
    return ScoredRows(*map(torch.from_numpy, scored))
