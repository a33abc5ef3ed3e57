"""Two steps in flight give what one gives: tokens, reasons and counts, whoever stops, is aborted or preempted.

In float64, where rounding cannot decide a tie. A run checks itself that no news comes after an end, that
what is told is what the sequence holds, and that every block is free in the end.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from tests.support.random_jobs import DRAWN, Alone, check_all
from tests.support.step_world import (
    HABITS,
    MAX_CONTEXT,
    Job,
    StepWorld,
    plain_runner,
    random_decoder,
    some_request,
    world_spec,
)

WINDOWS = [(None, None), (6, 6), (None, 5)]
WAYS = [(1, plain_runner), (2, plain_runner)]
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}


@pytest.fixture(scope="module", params=WINDOWS, ids=["full", "window6", "mixed"])
def model(request):
    return random_decoder(world_spec(request.param))


@pytest.fixture(scope="module")
def alone(model):
    return Alone(model)


@settings(max_examples=10, phases=[Phase.generate], **QUIET)
@given(**DRAWN)
def test_two_steps_in_flight_give_what_one_gives(alone, drawn, spare_blocks, **dials):
    check_all(alone, WAYS, drawn, spare_blocks, **dials)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=500, **QUIET)
@given(**DRAWN)
def test_hundreds_of_jobs_with_two_steps_in_flight_give_what_one_gives(alone, drawn, spare_blocks, **dials):
    check_all(alone, WAYS, drawn, spare_blocks, **dials)


@pytest.mark.parametrize("habit", sorted(HABITS))
def test_looking_ahead_is_worth_a_turn_for_each_token_of_a_row_that_allows_it(model, habit):
    looks_back = some_request("r", habit, 4).sampling.looks_back
    plans = []
    world = StepWorld(model, model.spec.layer_windows, steps_in_flight=2)
    begin = world.runner.begin

    def watched(plan):
        plans.append(plan)
        return begin(plan)

    world.runner.begin = watched
    world.run(Job(some_request("r", habit, 4, max_tokens=8)))

    assert any(chunk.takes_last_draw for plan in plans for chunk in plan.chunks) is not looks_back


def test_the_jobs_of_this_law_do_stop_get_preempted_and_hit_prefixes(model):
    windows = model.spec.layer_windows
    least = StepWorld(model, windows).layout.num_blocks_for(MAX_CONTEXT)
    world = StepWorld(model, windows, num_blocks=least, steps_in_flight=2, max_chunk_tokens=20)
    habits = ["stops", "random", "counted", "masked", "greedy", "random"]
    jobs = [
        Job(some_request(f"r{i}", habit, 9, seed=3 * i, max_tokens=40), at=i)
        for i, habit in enumerate(habits)
    ]
    outcomes = [own for outcome in world.run(*jobs) for own in outcome]

    assert {own.reason for own in outcomes} == {"stop", "length"}
    if None in windows:  # a pool of rings alone is never short of blocks twice
        assert world.scheduler.load.num_preemptions > 0
    assert world.scheduler.prefix_counters.num_cached_tokens > 0
