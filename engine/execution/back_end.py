"""`BackEnd`: what computes a model, and where; and `Placed`, the model once it is there."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from engine.cache.layout import CacheDemand, CacheLayout
from engine.config import EngineConfig
from engine.execution.row_answers import MaskSource
from engine.models.weights import OnProgress
from engine.plan import Runner

Report = Callable[[str], OnProgress]
"""For a stage of loading, what is told (done, total) of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """A model in memory: how its cache is laid out, what computes its steps, and the bytes of its weights."""

    layout: CacheLayout
    runner: Runner
    weight_bytes: int


class BackEnd(Protocol):
    """What computes, by the names that operators know."""

    device: str  # "cpu" or "cuda"
    device_name: str
    dtype: str
    cache_dtype: str
    kernels: str

    def place(self, masks: MaskSource, report: Report) -> Placed:
        """Read the weights and make the cache.

        ConfigError where the pool cannot work, before the weights are read if that is known by then;
        CheckpointError for the weights.
        """
        ...


def cache_demand(config: EngineConfig, cache_bytes: int, element_bytes: int, scale_bytes: int) -> CacheDemand:
    """What a cache of `cache_bytes` has to provide for."""
    return CacheDemand(
        block_size=config.cache.block_size,
        cache_bytes=cache_bytes,
        max_chunk_tokens=config.scheduling.max_chunk_tokens,
        element_bytes=element_bytes,
        max_context=config.model.max_context,
        scale_bytes=scale_bytes,
    )
