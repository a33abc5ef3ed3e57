"""`MemoryPlan`: how much of a device's memory the cache gets, from what was measured of all the rest.

Weights are loaded when it is made; what the largest step and the recorded steps take is measured by doing
them once on a small cache. It knows no model: a `Meter` measures, and somebody else acts.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch

from engine.config import CacheConfig
from engine.errors import ConfigError

MIB = 1 << 20


class Meter(Protocol):
    """Measures the memory of one device, in bytes."""

    def free(self) -> tuple[int, int]:
        """(free, total) of the whole device, with nothing cached by this process."""
        ...

    def peak_of(self, act: Callable[[], None]) -> int:
        """How much more than before `act` holds at its height."""
        ...


class CudaMeter:
    """What CUDA and torch's allocator say."""

    def __init__(self, device: torch.device) -> None:
        self._device = device

    def free(self) -> tuple[int, int]:
        """Waits for the device and gives back what the allocator keeps, so that only what is held counts."""
        torch.cuda.synchronize(self._device)
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(self._device)

    def peak_of(self, act: Callable[[], None]) -> int:
        """By the allocator's own statistics."""
        self.free()
        before = torch.cuda.memory_allocated(self._device)
        torch.cuda.reset_peak_memory_stats(self._device)
        act()
        torch.cuda.synchronize(self._device)
        return torch.cuda.max_memory_allocated(self._device) - before


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryPlan:
    """The figures by which the cache was sized, in bytes.

    `used` is all that was taken before there was a cache: weights, and whatever other processes hold;
    `step` what the largest step takes on top, `recorded` what the recorded steps keep.
    """

    total: int
    used: int
    step: int
    recorded: int
    fraction: float

    @property
    def cache_bytes(self) -> int:
        """What is left of `fraction` of all for the cache; may be below 0."""
        return int(self.total * self.fraction) - self.used - self.step - self.recorded

    def describe(self) -> str:
        """The figures in MiB, as name=number."""
        return (
            f"total={self.total // MIB} used={self.used // MIB} step={self.step // MIB} "
            f"recorded={self.recorded // MIB} cache={self.cache_bytes // MIB}"
        )

    def check(self, config: CacheConfig) -> int:
        """The bytes of the cache: what the configuration names, where it is within reach, or what is left.

        ConfigError with all figures, and what to lower, where there is no room.
        """
        room = self.total - self.used - self.step - self.recorded
        if config.kv_cache_bytes is not None:
            if config.kv_cache_bytes > room:
                raise ConfigError(
                    f"kv_cache_bytes is {config.kv_cache_bytes}, and the device has room for {max(0, room)} "
                    f"(MiB: {self.describe()}); lower it, or {ADVICE}"
                )
            return config.kv_cache_bytes
        if self.cache_bytes <= 0:
            raise ConfigError(
                f"no memory is left for the cache within memory_fraction {self.fraction} "
                f"(MiB: {self.describe()}); raise it, free memory on the device, or {ADVICE}"
            )
        return self.cache_bytes


ADVICE = "lower --max-step-tokens or --max-running, take --quantization fp8, or skip recording with --eager"


def plan_memory(
    meter: Meter, fraction: float, run_step: Callable[[], None], record: Callable[[int], int] | None
) -> MemoryPlan:
    """Measure and plan. `record(n)` records n steps, the largest first, and tells how many there are in all.

    What all of them keep is told from one and from two: they share their working memory, which is as large
    as the first one's, and each keeps its own launches.
    """
    free, total = meter.free()
    run_step()  # the first time compiles kernels and makes workspaces that stay
    settled, _ = meter.free()
    step = meter.peak_of(run_step)
    recorded = 0
    if record is not None:
        number = record(1)
        first, _ = meter.free()
        record(2)
        second, _ = meter.free()
        recorded = max(0, settled - first) + max(0, first - second) * (number - 1)
    return MemoryPlan(
        total=total, used=total - min(free, settled), step=step, recorded=recorded, fraction=fraction
    )


@contextmanager
def explained_shortage(meter: Meter, doing: str) -> Iterator[None]:
    """Turn running out of memory while `doing` something at start into a ConfigError with figures."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        free, total = meter.free()
        raise ConfigError(
            f"the device ran out of memory while {doing}: {free // MIB} of {total // MIB} MiB are free after "
            f"giving up; {ADVICE}, or free memory on the device"
        ) from error
