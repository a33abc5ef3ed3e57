"""Checkpoints loaded for the native kernels, and for the reference beside them."""

from pathlib import Path

import torch

from engine.batch import LayerCache
from engine.kernels.cached import to_cached
from engine.kernels.ops import REFERENCE, native_ops
from engine.layers.kit import LayerKit
from engine.models.decoder import Decoder
from engine.models.loader import load_decoder
from engine.models.registry import read_spec
from engine.models.weights import Through, as_it_is
from tests.support.native import native_kernels
from tests.support.pack_by_hand import RingRun

CPU = torch.device("cpu")


def load_native(path: Path, level: str, through: Through = as_it_is) -> Decoder:
    """The decoder on the operations of one level, not fused."""
    kernels = native_kernels(level)
    kit = LayerKit.packed(native_ops(kernels), kernels)
    return load_decoder(path, read_spec(path), kit, lambda _done, _total: None, through)


def load_reference(path: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    """The decoder on the reference."""
    kit = LayerKit.dense(REFERENCE, CPU, dtype)
    return load_decoder(path, read_spec(path), kit, lambda _done, _total: None)


def native_run(decoder: Decoder, **sizes: int) -> RingRun:
    """A `RingRun` whose caches are bfloat16, as the native kernels have them."""
    return with_caches(RingRun(decoder, **sizes), torch.bfloat16)


def with_caches(run: RingRun, dtype: torch.dtype) -> RingRun:
    """The run with caches of another type, still empty."""
    run.caches = [
        LayerCache(
            group=cache.group, keys=to_cached(cache.keys, dtype), values=to_cached(cache.values, dtype)
        )
        for cache in run.caches
    ]
    return run
