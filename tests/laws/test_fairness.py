"""Fairness and ageing: whoever waits begins within a bound that its own queue and priority imply."""

from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cache.pool import CachePool
from engine.config import SchedulingConfig
from engine.request import Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import SequenceState, make_sequences
from tests.support.fake_runner import FakeRunner
from tests.support.manual_clock import ManualClock
from tests.support.specs import small_layout

STEP_S = 1.0
AGEING_S = 5.0
PROPERTY = settings(max_examples=60, derandomize=True)


class World:
    """A scheduler that computes a step a second, one sequence at a time."""

    def __init__(self, *, max_running=1, num_blocks=64):
        self.layout = small_layout(None, num_blocks=num_blocks)
        config = SchedulingConfig(
            max_step_tokens=8, max_chunk_tokens=8, max_running=max_running, priority_ageing_s=AGEING_S
        )
        self.clock = ManualClock()
        self.scheduler = Scheduler(config, CachePool(self.layout), frozenset({0}), self.clock.now)
        self.runner = FakeRunner(self.layout)
        self.next_id = 0

    def add(self, caller, *, priority=0, prompt=2, max_tokens=2):
        request = Request(
            request_id=str(self.next_id),
            prompt_ids=tuple(range(1, prompt + 1)),
            sampling=SamplingParams(max_tokens=max_tokens, seed=0, ignore_eos=True),
            caller=caller,
            priority=priority,
        )
        (sequence,) = make_sequences(request, self.next_id, [self.layout.new_tables()])
        self.runner.expect(self.next_id, request.prompt_ids)
        self.next_id += 1
        self.scheduler.add((sequence,))
        return sequence

    def step(self):
        plan = self.scheduler.plan()
        if plan.chunks:
            self.scheduler.commit(plan, self.runner.finish(self.runner.begin(plan)))
        self.clock.jump(STEP_S)


@PROPERTY
@given(priority=st.integers(1, 6), better=st.lists(st.integers(-3, 0), min_size=1, max_size=5))
def test_ageing_ends_the_wait_though_better_priorities_keep_coming(priority, better):
    world = World()
    world.add("a")
    patient = world.add("a", priority=priority)
    num_steps = 0
    while patient.state is SequenceState.WAITING:
        if num_steps % 2 == 0:  # as fast as they are served
            world.add("a", priority=better[num_steps // 2 % len(better)])
        world.step()
        num_steps += 1

        # Only those can precede it that come before it has made up for the best priority.
        assert num_steps <= AGEING_S * (priority - min(better)) / STEP_S + 6


@PROPERTY
@given(
    queues=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    prompts=st.lists(st.integers(1, 16), min_size=1, max_size=5),
    max_running=st.integers(1, 3),
)
def test_a_callers_first_waits_for_at_most_one_of_each_other(queues, prompts, max_running):
    world = World(max_running=max_running)
    for number, length in enumerate(queues):
        for place in range(length):
            world.add(f"caller {number}", prompt=prompts[place % len(prompts)])
    for _ in range(3):
        world.step()
    begun = {s for s, own in world.scheduler._known.items() if own.has_begun}
    newcomer = world.add("newcomer")
    for _ in range(1000):
        if newcomer.state is not SequenceState.WAITING:
            break
        world.step()
        begun_later = {s for s, own in world.scheduler._known.items() if own.has_begun} - begun

        assert len(begun_later - {newcomer.sequence_id}) <= len(queues) + max_running

    assert newcomer.state is not SequenceState.WAITING


@PROPERTY
@given(
    arrivals=st.lists(
        st.tuples(st.sampled_from("abc"), st.integers(-2, 2), st.integers(1, 20), st.integers(1, 12)),
        min_size=1,
        max_size=40,
    ),
    num_blocks=st.integers(8, 20),
)
def test_everybody_ends_whatever_comes_when_blocks_are_short(arrivals, num_blocks):
    world = World(max_running=4, num_blocks=num_blocks)
    for caller, priority, prompt, max_tokens in arrivals:
        world.add(caller, priority=priority, prompt=prompt, max_tokens=max_tokens)
        world.step()
    for _ in range(3000):
        if not world.scheduler.has_work:
            break
        world.step()

    assert not world.scheduler.has_work
    assert world.scheduler.load.num_free_blocks == num_blocks
