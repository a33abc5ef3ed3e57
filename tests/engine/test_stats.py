import pickle

import pytest

from engine.prefix_report import PrefixCounters
from engine.stats import EngineCounters, EngineStats, Histogram, PoolGauges, RingView, SequenceView, Tally

BOUNDS = (1.0, 2.0)


def tallied(*values: float) -> Histogram:
    tally = Tally(BOUNDS)
    for value in values:
        tally.observe(value)
    return tally.to_histogram()


@pytest.mark.parametrize(
    ("value", "counts"),
    [(0.5, (1, 0, 0)), (1.0, (1, 0, 0)), (1.5, (0, 1, 0)), (2.0, (0, 1, 0)), (2.5, (0, 0, 1))],
)
def test_a_bound_belongs_to_the_values_below_it(value: float, counts: tuple[int, ...]):
    assert tallied(value) == Histogram(bounds=BOUNDS, counts=counts, total=value)


def test_a_value_that_occurred_several_times_counts_as_often():
    tally = Tally(BOUNDS)
    tally.observe(0.5, 3)

    assert tally.to_histogram() == tallied(0.5, 0.5, 0.5)


def test_a_histogram_stays_as_it_was_when_more_values_come():
    tally = Tally(BOUNDS)
    before = tally.to_histogram()
    tally.observe(1.0)

    assert before == Histogram.empty(BOUNDS)


def test_histograms_add_up():
    both = tallied(0.5, 1.5) + tallied(7.0)

    assert both == tallied(0.5, 1.5, 7.0)
    assert both.num_values == 3


def test_counters_add_up_field_by_field():
    first = EngineCounters(num_preempted=1, num_failed_steps=2, prefix=PrefixCounters(num_tokens=3))
    second = EngineCounters(num_preempted=10, prefix=PrefixCounters(num_tokens=20, num_differs=5))

    assert first + second == EngineCounters(
        num_preempted=11, num_failed_steps=2, prefix=PrefixCounters(num_tokens=23, num_differs=5)
    )


def test_what_is_neither_free_nor_evictable_is_held():
    assert PoolGauges(num_blocks=10, num_free=3, num_evictable=2).num_held == 5


def test_blocks_are_counted_over_all_rings():
    rings = tuple(RingView(window=8, block_ids=ids, base=0, length=4, max_blocks=3) for ids in ((1, 2), (3,)))
    view = SequenceView(
        sequence_id=1,
        request_id="a",
        caller="key-1",
        choice=0,
        state="running",
        priority=0,
        num_prompt_tokens=3,
        num_tokens=4,
        num_computed=4,
        num_cached=None,
        rings=rings,
    )

    assert view.num_blocks == 3


def test_a_seconds_stats_are_small_on_the_wire():
    assert len(pickle.dumps(EngineStats(), 5)) < 2000
