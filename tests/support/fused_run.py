"""A `RingRun` whose decoder is fused: its batches, worked out by hand, become words here by hand too."""

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.batch import Batch, LayerCache
from engine.kernels.cpu.context import KernelContext
from engine.kernels.cpu.native import all_cache_places
from engine.layers.norm import RMSNorm
from engine.layers.packed import PackedLinear
from engine.models.decoder import Decoder
from engine.models.fused import FusedDecoder
from engine.models.native_weights import NativeWeights
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


class TensorCaches:
    """Caches that are tensors, as a `FusedDecoder` takes them."""

    def __init__(self, caches: Sequence[LayerCache]) -> None:
        self.places = all_cache_places(caches)
        self.num_groups = 1 + max(cache.group for cache in caches)
        self._caches = caches  # that `places` points into


def fused(
    decoder: Decoder, kernels: KernelContext, caches: Sequence[LayerCache], block_size: int
) -> FusedDecoder:
    """The weights of a decoder on native kernels, with its caches, in one call."""
    modules = dict(decoder.named_modules())
    weights = NativeWeights(
        spec=decoder.spec,
        projections={name: own.packed for name, own in modules.items() if isinstance(own, PackedLinear)},
        vectors={
            f"{name}.weight": own.weight.numpy() for name, own in modules.items() if isinstance(own, RMSNorm)
        },
    )
    return FusedDecoder(weights, kernels, TensorCaches(caches), block_size)


class FusedByHand:
    """Stands for the decoder of a `RingRun`."""

    def __init__(self, fused: FusedDecoder) -> None:
        self._fused = fused

    def logits(self, hidden: Tensor) -> Tensor:
        return torch.from_numpy(self._fused.logits(hidden.numpy()))

    def __call__(self, batch: Batch, caches: Sequence[LayerCache]) -> Tensor:
        stop = 1 + int(batch.positions.max())
        return torch.from_numpy(self._fused.hidden(words_of(batch), len(batch.wanted_rows), stop))


def fuse(run: RingRun, level: str) -> RingRun:
    """The run, from now on computed by one call a step; its caches must not be changed for others."""
    run.decoder = FusedByHand(fused(run.decoder, native_kernels(level), run.caches, run.block_size))
    return run
