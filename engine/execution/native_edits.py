"""`edited`: the changes of single logits that draws ask for, in numpy: what `sampler.edit` does to tensors.

    mask · allowed · banned · bias · penalties

The stages and their sources are those of `logits.py`, to the last bit; what comes after them in a draw
the native kernels do themselves.
"""

from collections.abc import Sequence

import numpy as np

from engine.execution.history import (
    banned_ids,
    count_penalties,
    count_tokens,
    counts_tokens,
    repetition_run_penalties,
)
from engine.execution.row_answers import Bits
from engine.kernels.cpu.memory import Floats
from engine.plan import Draw


def edited(logits: Floats, draws: Sequence[Draw], bits: Bits | None) -> Floats:
    """Logits [R, V] as they are, or where any of `draws` asks for a change, a changed copy.

    `bits` [m, V / 32] are the packed masks of the masked draws, in their order.
    """
    if not any(draw.is_masked or draw.banned_ids or draw.sampling.edits_logits for draw in draws):
        return logits
    logits = logits.copy()
    masks = iter(() if bits is None else bits)
    for row, draw in zip(logits, draws, strict=True):
        if draw.is_masked:
            _keep_set(row, next(masks))
        _edit(row, draw)
    return logits


def _edit(row: Floats, draw: Draw) -> None:
    """One row [V] after the stages that change single entries, in place."""
    own = draw.sampling
    if own.allowed_ids:
        _keep_only(row, list(own.allowed_ids))
    if banned := banned_ids(draw):
        _leave_out(row, banned)
    if own.logit_bias:
        columns, biases = zip(*own.logit_bias, strict=True)
        row[list(columns)] += np.array(biases, dtype=np.float32)
    if counts_tokens(draw):
        counts = count_tokens(draw)
        if own.repetition_penalty != 1.0:
            _weaken(row, list(counts), own.repetition_penalty)
        _subtract(row, count_penalties(own, counts))
    if own.dry_multiplier:
        _subtract(row, repetition_run_penalties(draw))


def _keep_set(row: Floats, bits: Bits) -> None:
    """Leave out entry t where bit t % 32 of word t // 32 is not set."""
    is_kept = np.unpackbits(bits.view(np.uint8), count=len(row), bitorder="little")
    row[is_kept == 0] = -np.inf


def _keep_only(row: Floats, columns: list[int]) -> None:
    """Leave no other entry than those, but where that leaves nothing."""
    kept = row[columns]
    if kept.max() != -np.inf:
        row.fill(-np.inf)
        row[columns] = kept


def _leave_out(row: Floats, columns: list[int]) -> None:
    """Leave out those entries, but where nothing else is left."""
    before = row[columns]
    row[columns] = -np.inf
    if row.max() == -np.inf:
        row[columns] = before


def _weaken(row: Floats, columns: list[int], factor: float) -> None:
    """x / factor above 0, x * factor below."""
    found, own = row[columns], np.float32(factor)
    row[columns] = np.where(found > 0, found / own, found * own)


def _subtract(row: Floats, penalties: dict[int, float]) -> None:
    row[list(penalties)] -= np.array(list(penalties.values()), dtype=np.float32)
