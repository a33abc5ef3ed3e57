"""A `RingRun` whose decoder is fused: its batches, worked out by hand, become words here by hand too."""

from array import array
from collections.abc import Sequence

from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.models.fused import FusedDecoder
from tests.support.native import native_kernels
from tests.support.pack_by_hand import RingRun


def words_of(batch: Batch) -> "array[int]":
    """A batch as the native kernels read it; tables may be padded, as they are in a batch."""
    words = [batch.num_chunks, len(batch.wanted_rows), *batch.wanted_rows.tolist()]
    for chunk, start in enumerate(batch.starts):
        token_ids = batch.token_ids[batch.row_starts[chunk] : batch.row_starts[chunk + 1]].tolist()
        words += [start, len(token_ids), *token_ids]
        for group in batch.groups:
            block_ids = group.tables[chunk].tolist()
            words += [group.bases[chunk] // group.block_size, len(block_ids), *block_ids]
    return array("q", words)


class FusedByHand:
    """Stands for the decoder of a `RingRun`."""

    def __init__(self, fused: FusedDecoder) -> None:
        self._fused = fused
        self.logits = fused.logits

    def __call__(self, batch: Batch, caches: Sequence[LayerCache]) -> Tensor:
        return self._fused.hidden(words_of(batch), len(batch.wanted_rows), 1 + int(batch.positions.max()))


def fuse(run: RingRun, level: str) -> RingRun:
    """The run, from now on computed by one call a step; its caches must not be changed for others."""
    run.decoder = FusedByHand(FusedDecoder(run.decoder, native_kernels(level), run.caches, run.block_size))
    return run
