import pytest

from engine.cache.pool import CachePool
from engine.config import SchedulingConfig
from engine.errors import EngineCrashedError
from engine.intake import Stop
from engine.loop import LoopParts, StepLoop
from engine.messages import (
    Abort,
    CacheCleared,
    ClearCache,
    Drain,
    Drained,
    Inspect,
    Inspected,
    Pulse,
    Updates,
)
from engine.metering import StepMeter
from engine.plan import StepPlan
from engine.request import FinishReason, Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import make_sequences
from tests.support.fake_runner import FakeRunner, expected_tokens
from tests.support.specs import small_layout

PROMPT = (3, 1, 4, 1, 5)


class ScriptedIntake:
    """Hands over one entry of `script` per call, then stops."""

    def __init__(self, script, bench):
        self.script = list(script)
        self.bench = bench
        self.waits = []

    def take(self, wait_s):
        self.waits.append(wait_s)
        self.bench.now_s += self.bench.passing_s
        return self.script.pop(0) if self.script else [Stop()]


class Bench:
    def __init__(self, *, steps_in_flight=1):
        self.layout = small_layout(6)
        config = SchedulingConfig(
            max_step_tokens=8, max_chunk_tokens=8, max_running=4, steps_in_flight=steps_in_flight
        )
        self.pool = CachePool(self.layout)
        self.scheduler = Scheduler(config, self.pool, frozenset({0}))
        self.runner = FakeRunner(self.layout)
        self.steps_in_flight = steps_in_flight
        self.sent = []
        self.now_s = self.passing_s = 0.0

    def sequences(self, first_id=0, max_tokens=4):
        sampling = SamplingParams(max_tokens=max_tokens, seed=0)
        request = Request(request_id=f"r{first_id}", prompt_ids=PROMPT, sampling=sampling)
        self.runner.expect(first_id, PROMPT)
        return make_sequences(request, first_id, [self.layout.new_tables()])

    def run(self, *script):
        intake = ScriptedIntake(script, self)
        parts = LoopParts(
            intake=intake,
            scheduler=self.scheduler,
            runner=self.runner,
            outbox=self,
            meter=StepMeter(self.scheduler, now=lambda: self.now_s),
        )
        StepLoop(parts, self.steps_in_flight).run()
        return intake

    def put(self, message):
        self.sent.append(message)

    def tokens(self):
        return tuple(t for message in self.sent if isinstance(message, Updates) for t in message.token_ids)


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_a_request_is_generated_to_its_end(steps_in_flight):
    bench = Bench(steps_in_flight=steps_in_flight)
    bench.run([bench.sequences()], *[[]] * 10)

    assert bench.tokens() == expected_tokens(PROMPT, 0, 4)
    assert bench.pool.num_free_blocks == 64


def test_an_idle_loop_waits_and_shows_that_it_lives():
    bench = Bench()
    intake = bench.run([], [])

    assert set(intake.waits) == {1.0}
    assert [type(message) for message in bench.sent] == [Pulse, Pulse]


def test_a_busy_loop_does_not_wait():
    bench = Bench()
    intake = bench.run([bench.sequences()], [], [])

    assert intake.waits[1:3] == [0, 0]


def test_freed_blocks_are_told_at_once():
    bench = Bench()
    bench.run([bench.sequences()], [Abort(request_id="r0")])

    assert isinstance(bench.sent[-1], Pulse)
    assert bench.sent[-1].load.num_free_blocks == 64


def test_a_failed_step_ends_its_requests_and_the_loop_goes_on():
    bench = Bench()
    bench.runner.failing_steps = 1
    bench.run([bench.sequences()], [bench.sequences(1)], *[[]] * 10)

    assert bench.sent[0].failures[0][0] == 0
    assert "planted" in bench.sent[0].failures[0][1].message
    assert bench.tokens() == expected_tokens(PROMPT, 0, 4)


def test_three_failed_steps_in_a_row_end_the_loop():
    bench = Bench()
    bench.runner.failing_steps = 3

    with pytest.raises(EngineCrashedError, match="3 steps failed in a row"):
        bench.run(*[[bench.sequences(i)] for i in range(5)])


def test_a_lost_device_ends_the_loop_at_once():
    bench = Bench()

    def begin(plan):
        raise EngineCrashedError("the device failed")

    bench.runner.begin = begin

    with pytest.raises(EngineCrashedError):
        bench.run([bench.sequences()])


def test_draining_is_told_once_everything_has_ended():
    bench = Bench()
    bench.run([bench.sequences(), Drain()], *[[]] * 10)
    kinds = [type(message) for message in bench.sent]

    assert kinds.count(Drained) == 1
    last_news = max(i for i, m in enumerate(bench.sent) if isinstance(m, Updates))
    assert bench.sent[last_news].finish_reasons[0] in set(FinishReason)
    assert kinds.index(Drained) > last_news


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_an_abort_frees_the_blocks_within_two_steps(steps_in_flight):
    bench = Bench(steps_in_flight=steps_in_flight)
    bench.run([bench.sequences(max_tokens=40)], [], [], [Abort(request_id="r0")], *[[]] * 6)
    frees = [message.load for message in bench.sent if message.load.num_free_blocks == 64]

    assert frees[0].num_steps <= 3 + 2
    assert frees[-1].num_steps == frees[0].num_steps


def test_work_that_nobody_plans_ends_the_loop_instead_of_spinning():
    bench = Bench()
    bench.scheduler.plan = StepPlan

    with pytest.raises(EngineCrashedError, match="plans nothing though there is work"):
        bench.run([bench.sequences()], [])


def test_the_cache_is_cleared_on_demand_and_the_number_told():
    bench = Bench()
    bench.run([bench.sequences()], *[[]] * 6, [ClearCache(order_id=4)], [ClearCache(order_id=5)])
    told = [message for message in bench.sent if isinstance(message, CacheCleared)]

    assert told == [CacheCleared(order_id=4, num_blocks=2), CacheCleared(order_id=5, num_blocks=0)]


def test_what_is_live_is_told_between_two_steps():
    bench = Bench()
    bench.run([bench.sequences()], [Inspect(number=7)], *[[]] * 6)
    (inspected,) = (message for message in bench.sent if isinstance(message, Inspected))

    assert inspected.number == 7
    assert [(view.request_id, view.num_computed) for view in inspected.view.sequences] == [("r0", 5)]


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_the_wait_of_a_sequence_is_told_with_its_first_step(steps_in_flight):
    bench = Bench(steps_in_flight=steps_in_flight)
    bench.run([bench.sequences()], *[[]] * 10)
    told = [message.waited_s for message in bench.sent if isinstance(message, Updates) and message.waited_s]

    assert told == [((0, 0.0),)]


def test_counters_ride_on_the_message_that_leaves_when_they_are_due():
    bench = Bench()
    bench.passing_s = 0.5  # with every look at the work
    bench.run([bench.sequences()], *[[]] * 5)
    counted = [m.stats.counters.step_s.num_values for m in bench.sent if m.stats is not None]

    assert counted == sorted(counted)
    assert len(counted) >= 2
    assert any(message.stats is None for message in bench.sent)


def test_a_failed_step_is_counted():
    bench = Bench()
    bench.passing_s = 0.6
    bench.runner.failing_steps = 1
    bench.run([bench.sequences()], *[[]] * 4)
    told = [message.stats for message in bench.sent if message.stats is not None]

    assert told[-1].counters.num_failed_steps == 1
