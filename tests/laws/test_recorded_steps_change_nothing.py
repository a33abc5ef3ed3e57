"""Steps replayed from recordings, tables kept up by differences and ids left on the device change no token.

The host stands for the device, and a call for a replay: the buckets and their filling, the differences of
tables, the ids fed back and the columns of draws are all really run, over the same jobs as two steps in
flight are. In float64, where rounding cannot decide a tie.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.random_jobs import DRAWN, Alone, check_all
from tests.support.step_world import (
    HABITS,
    Job,
    StepWorld,
    device_runner,
    eager_device_runner,
    random_decoder,
    some_request,
    world_spec,
)

WINDOWS = [(None, None), (6, 6), (None, 5)]
WAYS = [(2, eager_device_runner), (1, device_runner), (2, device_runner)]
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module", params=WINDOWS, ids=["full", "window6", "mixed"])
def alone(request):
    return Alone(random_decoder(world_spec(request.param)))


@settings(max_examples=8, phases=[Phase.generate], **QUIET)
@given(**DRAWN)
def test_recorded_steps_give_what_the_plain_runner_gives(alone, drawn, spare_blocks, **dials):
    check_all(alone, WAYS, drawn, spare_blocks, **dials)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=300, **QUIET)
@given(**DRAWN)
def test_hundreds_of_jobs_in_recorded_steps_give_what_the_plain_runner_gives(
    alone, drawn, spare_blocks, **dials
):
    check_all(alone, WAYS, drawn, spare_blocks, **dials)


def test_steps_in_which_all_decode_are_replayed_and_no_others(alone):
    world = StepWorld(alone.model, alone.model.spec.layer_windows, device_runner, steps_in_flight=2)
    replayed, planned = [], []
    replay, begin = world.runner.graphs.replay, world.runner.begin

    def watched(size, kind):
        replayed.append((size, kind.name))
        return replay(size, kind)

    def watched_begin(plan):
        planned.append(plan)
        return begin(plan)

    world.runner.graphs.replay, world.runner.begin = watched, watched_begin
    world.run(*[Job(some_request(f"r{i}", habit, 9, max_tokens=8)) for i, habit in enumerate(sorted(HABITS))])
    decodes = [plan for plan in planned if all(chunk.num_tokens == 1 for chunk in plan.chunks)]

    assert len(replayed) == len(decodes) > 0
    assert {size for size, _ in replayed} <= {1, 2, 4, 8, 16}
    assert len(planned) > len(decodes)
