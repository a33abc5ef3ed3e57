"""`place_on_gpu`: the cache and the runner on a device, as large as what was measured leaves room for.

Recording comes before the first answer: it takes seconds, and whoever cannot wait has `--eager`. Everything
that may run out of memory does so here, at start, and says what to lower.
"""

import gc
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from engine.cache.layout import CacheLayout, plan_layout
from engine.cache.store import CacheStore
from engine.config import CacheConfig
from engine.execution.device_runner import NUM_SPARE_BLOCKS, DeviceParts, DeviceRunner
from engine.execution.link import CudaLink, Link
from engine.execution.memory_plan import CudaMeter, MemoryPlan, Meter, explained_shortage, plan_memory
from engine.execution.trial import Trial, TrialParts

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """What is asked of the device: its memory's measures, and a link of its own for every runner."""

    meter: Meter
    new_link: Callable[[], Link]

    @classmethod
    def at(cls, device: torch.device) -> "Gpu":
        """A CUDA device."""
        return cls(meter=CudaMeter(device), new_link=lambda: CudaLink(device))


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """What came of it."""

    layout: CacheLayout
    runner: DeviceRunner
    plan: MemoryPlan


def place_on_gpu(
    gpu: Gpu,
    parts: TrialParts,
    cache: CacheConfig,
    *,
    is_eager: bool,
    report: Callable[[int, int], None],
) -> Placement:
    """Measure, make the cache, and record steps unless `is_eager`, telling `report(done, total)` of each.

    The `link` and the cache's size in `parts` are for a trial; others are made here.
    """
    with explained_shortage(gpu.meter, "computing the largest step"):
        trial = Trial(parts)
        plan = plan_memory(
            gpu.meter, cache.memory_fraction, trial.run_step, None if is_eager else trial.record
        )
        del trial
    logger.info("memory in MiB %s", plan.describe())
    layout = plan_layout(parts.spec, replace(parts.demand, cache_bytes=plan.check(cache)))
    with explained_shortage(gpu.meter, "making the cache"):
        gc.collect()  # what was recorded on trial refers to itself
        gpu.meter.free()
        store = CacheStore.allocate(
            layout, parts.spec, device=parts.device, dtype=parts.dtype, num_spare_blocks=NUM_SPARE_BLOCKS
        )
    runner = DeviceRunner(
        DeviceParts(
            model=parts.model,
            store=store,
            layout=layout,
            link=gpu.new_link(),
            masks=parts.masks,
            max_running=parts.scheduling.max_running,
            draw=parts.draw,
        )
    )
    if not is_eager:
        _record(gpu, runner, report)
    return Placement(layout=layout, runner=runner, plan=plan)


def _record(gpu: Gpu, runner: DeviceRunner, report: Callable[[int, int], None]) -> None:
    start_s = time.monotonic()
    with explained_shortage(gpu.meter, "recording decode steps"):
        runner.record(report)
        gpu.meter.free()
    logger.info("recorded steps=%d seconds=%.1f", runner.graphs.num_recorded, time.monotonic() - start_s)
