"""`DeviceSampler`: draws that change logits first, or tell how probable they were, without asking the device.

Bias, penalties and masks are made in torch, a few entries at a time; the draw itself is the plain one of the
device. Only stages that no plain draw has (typical-p and XTC) are left to `TorchSampler`, which sorts whole
rows and waits for some of what it finds. All give the same tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from engine.execution.philox import uniforms
from engine.execution.plain_draw import DrawColumns, DrawKind, DrawPlainly, kind_once_edited
from engine.execution.sampler import TorchSampler, edit
from engine.execution.sampling_rows import Bits, Edits
from engine.execution.scored_rows import ScoredRows
from engine.execution.scoring import score
from engine.plan import Draw

NUM_COLUMNS = 5


class DeviceSampler:
    """Implements `Sampler` around a way to make plain draws."""

    def __init__(self, draw: DrawPlainly) -> None:
        self._draw = draw
        self._torch = TorchSampler()

    def draw(
        self, logits: Tensor, draws: Sequence[Draw], positions: Sequence[int], bits: Bits | None = None
    ) -> tuple[Tensor, ScoredRows | None]:
        """One token id for each of `draws`, and how probable they were for those that ask."""
        kind = kind_once_edited(draws)
        if kind is DrawKind.RARE:
            return self._torch.draw(logits, draws, positions, bits)
        edits = Edits.gather(draws, bits, logits)
        edited = logits if edits is None else edit(logits, edits)
        token_ids = self._draw(kind, edited, _columns(draws, positions, logits.device))
        scored = [row for row, draw in enumerate(draws) if draw.sampling.logprobs]
        if not scored:
            return token_ids, None
        num_top = max(draw.sampling.num_top_logprobs for draw in draws)
        if len(scored) == len(draws):
            return token_ids, score(logits, token_ids, num_top)
        asking = _placed(np.array(scored, dtype=np.int64), logits.device)
        return token_ids, score(logits[asking], token_ids[asking], num_top)

    def score(self, logits: Tensor, token_ids: Tensor, num_top: int) -> ScoredRows:
        """How probable one given token of each row is."""
        return score(logits, token_ids, num_top)


def _columns(draws: Sequence[Draw], positions: Sequence[int], device: torch.device) -> DrawColumns:
    """The parameters of all rows, in one copy."""
    params = [draw.sampling for draw in draws]
    words = np.empty((NUM_COLUMNS, len(draws)), dtype=np.int64)
    real = words.view(np.float64)
    real[0] = uniforms([own.seed for own in params], [draw.choice for draw in draws], positions)
    real[1] = [0.0 if own.is_greedy else own.temperature for own in params]
    words[2] = [own.top_k for own in params]
    real[3] = [own.top_p for own in params]
    real[4] = [own.min_p for own in params]
    whole = _placed(words, device)
    wide = whole.view(torch.float64)
    return DrawColumns(uniforms=wide[0], temperature=wide[1], top_k=whole[2], top_p=wide[3], min_p=wide[4])


def _placed(numbers: "np.typing.NDArray[np.int64]", device: torch.device) -> Tensor:
    """On the device, which takes them when it comes to them."""
    held = torch.from_numpy(numbers)
    return held.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else held
