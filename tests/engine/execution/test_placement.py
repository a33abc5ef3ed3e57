"""Placement with the host in the place of a GPU, and a meter that says what it is told."""

import pytest
import torch

from engine.cache.layout import CacheDemand
from engine.cache.pool import CachePool
from engine.config import CacheConfig, SchedulingConfig
from engine.errors import ConfigError
from engine.execution.graphs import buckets
from engine.execution.link import HostLink
from engine.execution.placement import Gpu, place_on_gpu
from engine.execution.plain_draw import DrawKind
from engine.execution.trial import TrialParts
from tests.support.step_world import TurnMasks, random_decoder, world_spec

MIB = 1 << 20


class FakeMeter:
    """A device of 10 MiB with 6 MiB free, where a step takes 1 MiB."""

    def __init__(self, free_bytes=6 * MIB):
        self.free_bytes = free_bytes

    def free(self):
        return self.free_bytes, 10 * MIB

    def peak_of(self, act):
        act()
        return MIB


@pytest.fixture(scope="module")
def model():
    return random_decoder(world_spec((None, 6)), dtype=torch.float32)


def place(model, meter=None, cache=None, **ways):
    parts = TrialParts(
        model=model,
        spec=model.spec,
        demand=CacheDemand(block_size=4, cache_bytes=0, max_chunk_tokens=8, element_bytes=4),
        scheduling=SchedulingConfig(max_step_tokens=16, max_chunk_tokens=8, max_running=3),
        link=HostLink(),
        masks=TurnMasks(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )
    told = []
    gpu = Gpu(meter=meter or FakeMeter(), new_link=HostLink)
    placement = place_on_gpu(
        gpu,
        parts,
        cache or CacheConfig(block_size=4),
        is_eager=ways.get("is_eager", False),
        report=lambda *of: told.append(of),
    )
    return placement, told


def test_the_cache_gets_what_the_plan_leaves(model):
    placement, _ = place(model)
    cache_bytes = 9 * MIB - 4 * MIB - MIB
    layout = placement.layout

    assert placement.plan.cache_bytes == cache_bytes
    assert layout.num_blocks == cache_bytes // layout.block_bytes
    assert CachePool(layout).num_free_blocks == layout.num_blocks


def test_every_decode_step_is_recorded_and_told(model):
    placement, told = place(model)
    number = len(buckets(3)) * len(DrawKind)

    assert placement.runner.graphs.num_recorded == number
    assert told == [(done, number) for done in range(1, number + 1)]


def test_eager_records_nothing(model):
    placement, told = place(model, is_eager=True)

    assert placement.runner.graphs.num_recorded == 0
    assert told == []


def test_a_device_without_room_is_refused_with_the_figures(model):
    with pytest.raises(ConfigError, match=r"memory_fraction 0.9 \(MiB: total=10 used=9 step=1"):
        place(model, FakeMeter(free_bytes=1000))


def test_running_out_of_memory_says_at_what(model):
    class Full(FakeMeter):
        def peak_of(self, act):
            raise torch.OutOfMemoryError("out")

    with pytest.raises(ConfigError, match="ran out of memory while computing the largest step"):
        place(model, Full())
