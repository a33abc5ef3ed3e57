"""`Trial`: a runner on a cache of a few blocks, to measure what steps take before the cache is made.

The largest step that the scheduler may plan is computed on it: as many rows as may run, as many tokens as a
step may have, every row drawn for. All sequences share the same blocks; what comes out is looked at by nobody.
"""

from dataclasses import dataclass, replace

import torch

from engine.cache.layout import CacheDemand, CacheLayout, plan_layout
from engine.cache.store import CacheStore
from engine.config import SchedulingConfig
from engine.execution.device_runner import NUM_SPARE_BLOCKS, DeviceParts, DeviceRunner
from engine.execution.graphs import buckets
from engine.execution.link import Link
from engine.execution.plain_draw import DrawKind, DrawPlainly, draw_plainly
from engine.execution.row_answers import MaskSource
from engine.execution.runner import Model
from engine.model_spec import ModelSpec
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams

ROOMY = 1 << 50


@dataclass(frozen=True, slots=True, kw_only=True)
class TrialParts:
    """What a runner on trial is made of; `demand` says all of the cache but its size."""

    model: Model
    spec: ModelSpec
    demand: CacheDemand
    scheduling: SchedulingConfig
    link: Link
    masks: MaskSource
    device: torch.device
    dtype: torch.dtype
    draw: DrawPlainly = draw_plainly


class Trial:
    """The runner, and the two things to try with it."""

    def __init__(self, parts: TrialParts) -> None:
        scheduling = parts.scheduling
        self._plan, num_blocks = largest_step(parts)
        layout = replace(_roomy_layout(parts), num_blocks=num_blocks)
        store = CacheStore.allocate(
            layout, parts.spec, device=parts.device, dtype=parts.dtype, num_spare_blocks=NUM_SPARE_BLOCKS
        )
        self._max_running = scheduling.max_running
        self._runner = DeviceRunner(
            DeviceParts(
                model=parts.model,
                store=store,
                layout=layout,
                link=parts.link,
                masks=parts.masks,
                max_running=scheduling.max_running,
                draw=parts.draw,
            )
        )

    def run_step(self) -> None:
        """Compute the largest step, and wait for it."""
        self._runner.finish(self._runner.begin(self._plan))

    def record(self, number: int) -> int:
        """Record the steps of the `number` largest buckets; how many steps are recorded in all.

        The first of them makes room for logits that all share.
        """
        sizes = buckets(self._max_running)[::-1]
        keys = [(sizes[0], DrawKind.RARE), *((size, DrawKind.TRUNCATED) for size in sizes[:number])]
        self._runner.graphs.record(keys, _tell_nobody)
        return len(sizes) * len(DrawKind)


def largest_step(parts: TrialParts) -> tuple[StepPlan, int]:
    """A plan with as many tokens and rows as a step may have, and how many blocks it names."""
    scheduling, layout = parts.scheduling, _roomy_layout(parts)
    longest = min(scheduling.max_chunk_tokens, layout.max_context)
    spare = scheduling.max_step_tokens - scheduling.max_running
    sampling = SamplingParams(max_tokens=1, seed=0, top_p=0.9)
    chunks = []
    for sequence_id in range(scheduling.max_running):
        length = 1 + min(spare, longest - 1)
        spare -= length - 1
        blocks = tuple(range(-(-length // layout.block_size)))
        chunks.append(
            Chunk(
                sequence_id,
                0,
                length,
                (0,) * length,
                tuple(ChunkTable(first_block=0, block_ids=blocks) for _ in layout.groups),
                draw=Draw(sampling=sampling, choice=0),
            )
        )
    return StepPlan(chunks=tuple(chunks)), -(-longest // layout.block_size)


def _tell_nobody(_done: int, _total: int) -> None:
    pass


def _roomy_layout(parts: TrialParts) -> CacheLayout:
    return plan_layout(parts.spec, replace(parts.demand, cache_bytes=ROOMY))
