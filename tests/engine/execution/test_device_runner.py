"""The runner for devices, with the host in the place of one: what laws do not show."""

import pytest
import torch

from engine.errors import EngineCrashedError
from tests.support.step_world import (
    HABITS,
    Job,
    StepWorld,
    device_runner,
    random_decoder,
    some_request,
    world_spec,
)


@pytest.fixture(scope="module")
def model():
    return random_decoder(world_spec((None, 6)))


def make(model, make_runner=device_runner, **dials):
    return StepWorld(model, model.spec.layer_windows, make_runner, steps_in_flight=2, **dials)


def tokens_of(outcomes):
    return [[own.token_ids for own in outcome] for outcome in outcomes]


def test_more_rows_than_lanes_at_once_come_and_go(model):
    jobs = [
        Job(some_request(f"r{i}", habit, 5, seed=i, max_tokens=6), at=i) for i, habit in enumerate(HABITS)
    ]
    roomy, narrow = make(model, max_running=16), make(model, max_running=2)

    assert tokens_of(narrow.run(*jobs)) == tokens_of(roomy.run(*jobs))


def test_scores_of_a_prompt_come_back_in_order(model):
    plain = StepWorld(model, model.spec.layer_windows)
    requests = [some_request("r", "scored", 20)]
    (expected,), (found,) = plain.run(Job(requests[0])), make(model).run(Job(requests[0]))

    assert found[0].logprobs == pytest.approx(expected[0].logprobs, abs=1e-9)


def test_a_step_that_fails_leaves_the_runner_as_able_as_before(model):
    world, expected = make(model), make(model)
    job = Job(some_request("r", "random", 9, max_tokens=12))
    begin, model_of = world.runner.begin, world.runner._parts.model
    failures = []

    def fails_at_first(plan):
        if len(plan.chunks) == 1 and plan.chunks[0].num_tokens == 1 and not failures:
            failures.append(plan)
            replay = world.runner.graphs.replay
            world.runner.graphs.replay = lambda size, kind: 1 / 0
            with pytest.raises(ZeroDivisionError):
                begin(plan)
            world.runner.graphs.replay = replay
        return begin(plan)

    world.runner.begin = fails_at_first
    assert model_of is model

    assert tokens_of(world.run(job)) == tokens_of(expected.run(job))
    assert failures


def test_more_rows_than_a_recorded_step_has_are_drawn_for_in_tiles(model):
    habits = ["masked", "random", "greedy", "scored"]
    jobs = [Job(some_request(f"r{i}", habits[i % 4], 2, seed=i, max_tokens=2)) for i in range(260)]
    world = make(model, max_running=260, max_step_tokens=520, num_blocks=2000, has_prefix_cache=False)
    alone = {
        habit: tokens_of(make(model).run(*[Job(job.request) for job in jobs[index::64]]))
        for index, habit in enumerate(habits)
    }
    found = tokens_of(world.run(*jobs))

    for index, habit in enumerate(habits):
        assert found[index::64] == alone[habit]


def test_a_lost_device_ends_the_process(model):
    world = make(model)

    def lost(size, kind):
        raise torch.AcceleratorError("gone")

    world.runner.graphs.replay = lost
    with pytest.raises(EngineCrashedError, match="the device failed"):
        world.run(Job(some_request("r", "greedy", 1)))
