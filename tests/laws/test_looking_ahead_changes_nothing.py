"""Two steps in flight give what one gives: tokens, reasons and counts, whoever stops, is aborted or preempted.

In float64, where rounding cannot decide a tie. A run checks itself that no news comes after an end, that
what is told is what the sequence holds, and that every block is free in the end.
"""

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.support.step_world import (
    HABITS,
    MAX_CONTEXT,
    Job,
    StepWorld,
    random_decoder,
    some_request,
    world_spec,
)

WINDOWS = [(None, None), (6, 6), (None, 5)]
QUIET = {"deadline": None, "derandomize": True, "suppress_health_check": list(HealthCheck)}
KINDS = st.tuples(
    st.sampled_from(sorted(HABITS)), st.sampled_from([1, 4, 9, 22, 40]), st.integers(1, 3), st.integers(1, 2)
)
MOMENTS = st.tuples(
    st.integers(0, 12), st.none() | st.integers(0, 20), st.none() | st.integers(0, 20), st.integers(4, 12)
)


@pytest.fixture(scope="module", params=WINDOWS, ids=["full", "window6", "mixed"])
def model(request):
    return random_decoder(world_spec(request.param))


class Alone:
    """Each kind of request as it is answered alone, one step at a time; remembered."""

    def __init__(self, model):
        self.model = model
        self._known = {}

    def __call__(self, kind, max_tokens):
        if (kind, max_tokens) not in self._known:
            world = StepWorld(self.model, self.model.spec.layer_windows, max_chunk_tokens=MAX_CONTEXT)
            self._known[kind, max_tokens] = world.run(Job(request_of("r", kind, max_tokens)))[0]
        return self._known[kind, max_tokens]


@pytest.fixture(scope="module")
def alone(model):
    return Alone(model)


def request_of(name, kind, max_tokens):
    habit, length, seed, num_choices = kind
    return some_request(name, habit, length, seed=seed, n=num_choices, max_tokens=max_tokens)


def check(outcomes, expected, is_cut_short):
    for own, whole in zip(outcomes, expected, strict=True):
        if own.reason is None:
            assert is_cut_short
            assert own.token_ids == whole.token_ids[: len(own.token_ids)]
        else:
            assert (own.token_ids, own.reason) == (whole.token_ids, whole.reason)
            assert own.logprobs == pytest.approx(whole.logprobs, abs=1e-9)


DRAWN = {
    "drawn": st.lists(st.tuples(KINDS, MOMENTS), min_size=1, max_size=6),
    "block_size": st.integers(1, 5),
    "max_chunk_tokens": st.integers(2, 20),
    "max_running": st.integers(1, 6),
    "spare_blocks": st.integers(0, 6),
    "has_prefix_cache": st.booleans(),
}


def check_all(alone, drawn, spare_blocks, **dials):
    model = alone.model
    windows = model.spec.layer_windows
    least = StepWorld(model, windows, **dials).layout.num_blocks_for(MAX_CONTEXT)
    jobs = [
        Job(request_of(f"r{i}", kind, max_tokens), at, abort_at, finish_at)
        for i, (kind, (at, abort_at, finish_at, max_tokens)) in enumerate(drawn)
    ]
    for steps_in_flight in (1, 2):
        world = StepWorld(
            model, windows, num_blocks=least + spare_blocks, steps_in_flight=steps_in_flight, **dials
        )
        outcomes = world.run(*jobs)

        for own, job, (kind, moments) in zip(outcomes, jobs, drawn, strict=True):
            is_cut_short = job.abort_at is not None or job.finish_at is not None
            check(own, alone(kind, moments[3]), is_cut_short)


@settings(max_examples=10, phases=[Phase.generate], **QUIET)
@given(**DRAWN)
def test_two_steps_in_flight_give_what_one_gives(alone, drawn, spare_blocks, **dials):
    check_all(alone, drawn, spare_blocks, **dials)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@settings(max_examples=500, **QUIET)
@given(**DRAWN)
def test_hundreds_of_jobs_with_two_steps_in_flight_give_what_one_gives(alone, drawn, spare_blocks, **dials):
    check_all(alone, drawn, spare_blocks, **dials)


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
    assert world.scheduler.load.prefix.num_cached_tokens > 0
