import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from engine.execution.graphs import buckets
from engine.execution.plain_draw import DrawKind
from tests.support.step_world import Job, StepWorld, device_runner, random_decoder, some_request, world_spec


@pytest.mark.parametrize(
    ("max_rows", "expected"),
    [
        (1, (1,)),
        (2, (1, 2)),
        (3, (1, 2, 4)),
        (8, (1, 2, 4, 8)),
        (9, (1, 2, 4, 8, 16)),
        (30, (1, 2, 4, 8, 16, 24, 32)),
    ],
)
def test_buckets_reach_the_most_rows_and_not_beyond_the_next(max_rows, expected):
    assert buckets(max_rows) == expected


def test_buckets_end_at_256():
    assert buckets(256) == buckets(1000)
    assert len(buckets(256)) == 35
    assert buckets(256)[-3:] == (240, 248, 256)


@pytest.fixture(scope="module")
def world():
    windows = (None, 5)
    return StepWorld(random_decoder(world_spec(windows)), windows, device_runner, max_running=3)


def test_every_bucket_and_kind_is_recorded(world):
    assert world.runner.graphs.num_recorded == len(buckets(3)) * len(DrawKind)
    assert [world.runner.graphs.bucket(number) for number in (1, 2, 3, 4, 5)] == [1, 2, 4, 4, None]


def test_progress_is_told_up_to_the_last(world):
    told = []
    world.runner.record(lambda done, total: told.append((done, total)))

    assert told == [(number, 12) for number in range(1, 13)]


def test_rows_for_nobody_write_to_the_spare_block_alone(world):
    world.run(Job(some_request("r", "random", 9, max_tokens=9)))
    num_slots = world.layout.num_blocks * world.layout.block_size
    caches = [cache for layer in world.runner._parts.store.layers for cache in (layer.keys, layer.values)]
    before = [cache[:num_slots].clone() for cache in caches]
    world.runner._columns.clear(4)
    world.runner.graphs.replay(4, DrawKind.TRUNCATED)

    assert all(torch.equal(cache[:num_slots], old) for cache, old in zip(caches, before, strict=True))
    assert all(cache[num_slots:].isfinite().all() for cache in caches)


class AsksNothing(TorchDispatchMode):
    """Fails at an operation that would make the host wait for a device, or bring it numbers of the host."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "unique", "is_nonzero", "equal", "lift_fresh")

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        name = operation.name().removeprefix("aten::").partition(".")[0]
        assert not any(name.startswith(word) for word in self.WAITS), f"{name} waits for the device"
        if name in ("index", "index_put", "index_put_"):
            picks = [pick for pick in args[1] if pick is not None]
            assert all(pick.dtype != torch.bool for pick in picks), f"{name} counts what is true"
        return operation(*args, **(kwargs or {}))


@pytest.mark.parametrize("kind", DrawKind, ids=lambda kind: kind.name)
@pytest.mark.parametrize("size", [1, 4])
def test_a_recorded_step_asks_the_host_for_nothing(world, kind, size):
    world.runner._columns.clear(size)

    with AsksNothing():
        world.runner.graphs.replay(size, kind)


def test_what_asks_the_host_is_found():
    numbers = torch.arange(4)

    for asks in (
        lambda: numbers.sum().item(),
        lambda: numbers[numbers > 1],
        lambda: bool(numbers.any()),
        lambda: torch.tensor([1, 2]),
    ):
        with pytest.raises(AssertionError), AsksNothing():
            asks()
