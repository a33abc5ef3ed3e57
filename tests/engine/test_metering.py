import time

import pytest

from engine.cache.pool import CachePool
from engine.config import SchedulingConfig
from engine.messages import Updates
from engine.metering import StepMeter
from engine.plan import Chunk, StepPlan
from engine.request import Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import Sequence, make_sequences
from tests.support.specs import small_layout


class Bench:
    """A meter over a scheduler that nobody drives, and a clock that the test moves."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self.layout = small_layout(6)
        self.scheduler = Scheduler(SchedulingConfig(), CachePool(self.layout), frozenset())
        self.meter = StepMeter(self.scheduler, lambda: self.now_s)

    def sequences(self, number: int) -> tuple[Sequence, ...]:
        request = Request(
            request_id=f"r{number}", prompt_ids=(1, 2), sampling=SamplingParams(max_tokens=4, seed=0)
        )
        return make_sequences(request, number, [self.layout.new_tables()])

    def step(self, *sizes: int, duration_s: float = 0.0, ids: tuple[int, ...] | None = None) -> None:
        plan = plan_of(*sizes, ids=ids)
        self.meter.begun(plan)
        self.now_s += duration_s
        self.meter.finished(plan)


def plan_of(*sizes: int, ids: tuple[int, ...] | None = None) -> StepPlan:
    ids = ids or tuple(range(len(sizes)))
    chunks = tuple(
        Chunk(sequence_id=key, start=0, stop=size, token_ids=(0,) * size, tables=())
        for key, size in zip(ids, sizes, strict=True)
    )
    return StepPlan(chunks=chunks)


def test_a_step_is_timed_and_its_shape_is_counted():
    bench = Bench()
    bench.step(1, 1, 30, duration_s=0.02)
    counters = bench.meter.stats().counters

    assert counters.step_s.total == pytest.approx(0.02)
    assert (counters.step_rows.total, counters.step_tokens.total) == (3.0, 32.0)
    assert counters.step_s.num_values == 1


def test_steps_in_flight_together_are_timed_each_from_its_own_beginning():
    bench = Bench()
    first, second = plan_of(1), plan_of(2)
    bench.meter.begun(first)
    bench.now_s += 1.0
    bench.meter.begun(second)
    bench.now_s += 2.0
    bench.meter.finished(first)
    bench.meter.finished(second)

    assert bench.meter.stats().counters.step_s.total == 3.0 + 2.0


@pytest.mark.parametrize(("is_newest", "left_s"), [(True, 3.0), (False, 2.0)])
def test_a_failed_step_is_counted_and_not_timed(is_newest: bool, left_s: float):
    bench = Bench()
    bench.meter.begun(plan_of(1))
    bench.now_s += 1.0
    bench.meter.begun(plan_of(1))
    bench.now_s += 2.0
    bench.meter.failed(is_newest=is_newest)
    bench.meter.finished(plan_of(1))
    counters = bench.meter.stats().counters

    assert (counters.num_failed_steps, counters.step_s.total) == (1, left_s)


def test_what_has_nothing_to_add_stays_the_same_message():
    updates = Updates(sequence_ids=(1,))

    assert Bench().meter.tell(updates) is updates


def test_counters_travel_at_most_once_a_second():
    bench = Bench()
    told = []
    for _ in range(30):
        bench.now_s += 0.125
        told.append(bench.meter.tell(Updates()).stats is not None)

    assert [number for number, is_told in enumerate(told, 1) if is_told] == [8, 16, 24]


def test_a_wait_ends_with_the_first_step_and_is_told_once():
    bench = Bench()
    bench.meter.queued(bench.sequences(7))
    bench.now_s += 0.5
    bench.step(2, ids=(7,))
    first = bench.meter.tell(Updates())
    bench.step(1, ids=(7,))

    assert first.waited_s == ((7, 0.5),)
    assert bench.meter.tell(Updates()).waited_s == ()


def test_who_leaves_the_queue_unserved_is_forgotten():
    bench = Bench()
    gone, here = bench.sequences(1), bench.sequences(2)
    bench.scheduler.add(here)
    bench.meter.queued((*gone, *here))
    bench.now_s += 1.0
    bench.meter.tell(Updates())

    assert set(bench.meter._queued_since_s) == {2}


def test_the_view_has_every_live_sequence_and_the_pool():
    bench = Bench()
    bench.scheduler.add(bench.sequences(3))
    view = bench.meter.view()

    assert [sequence.request_id for sequence in view.sequences] == ["r3"]
    assert view.stats.pool.num_blocks == 64


@pytest.mark.slow
def test_a_step_of_sixty_four_rows_costs_less_than_ten_microseconds():
    bench = Bench()
    plan = plan_of(*[1] * 64)
    updates = Updates()
    fastest_s = 1.0
    for _ in range(50):
        start_s = time.perf_counter()
        for _ in range(100):
            bench.meter.begun(plan)
            bench.meter.finished(plan)
            bench.meter.tell(updates)
        fastest_s = min(fastest_s, (time.perf_counter() - start_s) / 100)

    assert fastest_s < 10e-6
