"""Random jobs for a StepWorld, and what each of them gets when it is answered alone."""

import pytest
from hypothesis import strategies as st

from tests.support.step_world import HABITS, MAX_CONTEXT, Job, StepWorld, some_request

KINDS = st.tuples(
    st.sampled_from(sorted(HABITS)), st.sampled_from([1, 4, 9, 22, 40]), st.integers(1, 3), st.integers(1, 2)
)
MOMENTS = st.tuples(
    st.integers(0, 12), st.none() | st.integers(0, 20), st.none() | st.integers(0, 20), st.integers(4, 12)
)


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


def check_all(alone, ways, drawn, spare_blocks, **dials):
    """Run the jobs in each way (steps in flight, maker of a runner); each is answered as it is alone."""
    model = alone.model
    windows = model.spec.layer_windows
    least = StepWorld(model, windows, **dials).layout.num_blocks_for(MAX_CONTEXT)
    jobs = [
        Job(request_of(f"r{i}", kind, max_tokens), at, abort_at, finish_at)
        for i, (kind, (at, abort_at, finish_at, max_tokens)) in enumerate(drawn)
    ]
    for steps_in_flight, make_runner in ways:
        world = StepWorld(
            model,
            windows,
            make_runner,
            num_blocks=least + spare_blocks,
            steps_in_flight=steps_in_flight,
            **dials,
        )
        outcomes = world.run(*jobs)

        for own, job, (kind, moments) in zip(outcomes, jobs, drawn, strict=True):
            is_cut_short = job.abort_at is not None or job.finish_at is not None
            check(own, alone(kind, moments[3]), is_cut_short)
