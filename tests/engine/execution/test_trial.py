import pytest
import torch

from engine.cache.layout import CacheDemand
from engine.config import SchedulingConfig
from engine.execution.graphs import buckets
from engine.execution.link import HostLink
from engine.execution.plain_draw import DrawKind
from engine.execution.trial import Trial, TrialParts, largest_step
from tests.support.step_world import TurnMasks, random_decoder, world_spec

WINDOWS = (None, 6)


@pytest.fixture(scope="module")
def model():
    return random_decoder(world_spec(WINDOWS), dtype=torch.float32)


def parts_of(model, **scheduling):
    demand = CacheDemand(block_size=4, cache_bytes=1, max_chunk_tokens=16, element_bytes=4)
    return TrialParts(
        model=model,
        spec=model.spec,
        demand=demand,
        scheduling=SchedulingConfig(**{"max_chunk_tokens": 16, **scheduling}),
        link=HostLink(),
        masks=TurnMasks(),
        device=torch.device("cpu"),
        dtype=torch.float32,
    )


@pytest.mark.parametrize(
    ("max_step_tokens", "max_running", "lengths"),
    [(40, 5, [16, 16, 6, 1, 1]), (5, 5, [1] * 5), (200, 3, [16] * 3)],
    ids=["shared out", "decodes", "more than fit"],
)
def test_the_largest_step_has_every_row_and_as_many_tokens_as_may_be(
    model, max_step_tokens, max_running, lengths
):
    plan, num_blocks = largest_step(parts_of(model, max_step_tokens=max_step_tokens, max_running=max_running))

    assert [chunk.num_tokens for chunk in plan.chunks] == lengths
    assert all(chunk.draw is not None for chunk in plan.chunks)
    assert {block for chunk in plan.chunks for table in chunk.tables for block in table.block_ids} <= set(
        range(num_blocks)
    )


def test_a_chunk_is_no_longer_than_the_context(model):
    plan, _ = largest_step(parts_of(model, max_step_tokens=1000, max_running=2, max_chunk_tokens=900))

    assert plan.chunks[0].num_tokens == model.spec.max_context


def test_the_largest_step_can_be_computed_and_recorded(model):
    trial = Trial(parts_of(model, max_step_tokens=40, max_running=5))
    trial.run_step()

    assert trial.record(2) == len(buckets(5)) * len(DrawKind)
