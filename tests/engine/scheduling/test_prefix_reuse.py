import pytest

from engine.cache.pool import CachePool
from engine.prefix_report import MissReason, PrefixReport
from engine.request import Request, SamplingParams
from engine.scheduling.prefix_reuse import PrefixReuse
from engine.scheduling.sequence import make_sequences
from tests.support.manual_clock import ManualClock
from tests.support.specs import small_layout


class Bench:
    """Sequences computed at a stroke, over blocks of four tokens."""

    def __init__(self, window=None, num_blocks=16):
        self.clock = ManualClock()
        self.pool = CachePool(small_layout(window, num_blocks=num_blocks), self.clock.now)
        self.reuse = PrefixReuse(self.pool)
        self.next_id = 0

    def sequence(self, prompt, *, salt="", **sampling):
        request = Request(
            request_id=f"r{self.next_id}",
            prompt_ids=tuple(prompt),
            sampling=SamplingParams(max_tokens=1, seed=0, **sampling),
            cache_salt=salt,
        )
        (sequence,) = make_sequences(request, self.next_id, [self.pool.layout.new_tables()])
        self.next_id += 1
        return sequence

    def compute(self, prompt, **asked):
        """Attach, compute in chunks of one block, and release; the report of the lookup."""
        sequence = self.sequence(prompt, **asked)
        assert self.reuse.attach(sequence)
        while sequence.num_computed < len(prompt):
            start = sequence.num_computed
            sequence.num_computed = min(start + 4, len(prompt))
            assert self.pool.reserve(sequence.tables, sequence.num_computed)
            self.reuse.remember(sequence, start)
            self.pool.roll(sequence.tables, sequence.num_computed, (sequence.shared_tokens,))
        self.pool.release(sequence.tables)
        return sequence.prefix_report


def report(matched, reason=None, missing=None, evicted_s_ago=None):
    return PrefixReport(
        num_matched_tokens=matched,
        block_size=4,
        miss_reason=reason,
        first_missing_block=missing,
        evicted_s_ago=evicted_s_ago,
    )


def test_the_first_prompt_was_never_seen():
    assert Bench().compute(range(9)) == report(0, MissReason.NEVER_SEEN, 0)


def test_a_prompt_found_to_its_last_block_misses_nothing():
    bench = Bench()
    bench.compute(range(9))

    assert bench.compute(range(9)) == report(8)


def test_a_prompt_that_goes_on_otherwise_differs_from_there():
    bench = Bench()
    bench.compute(range(13))

    assert bench.compute([0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0]) == report(8, MissReason.DIFFERS, 2)


def test_a_salted_prompt_does_not_tell_what_others_cached():
    bench = Bench()
    bench.compute(range(9))

    assert bench.compute(range(9), salt="mine") == report(0, MissReason.SALTED, 0)


def test_an_evicted_block_tells_how_long_ago_it_went():
    bench = Bench(num_blocks=4)
    bench.compute(range(13))
    bench.clock.jump(5.0)
    bench.compute(range(100, 108))
    bench.clock.jump(2.5)

    assert bench.compute(range(13)) == report(8, MissReason.EVICTED, 2, 2.5)
    assert bench.reuse.counters.num_evicted_blocks > 0


def test_an_evicted_block_within_a_window_is_told_too():
    bench = Bench(6, num_blocks=6)
    bench.compute(range(16))
    for start in (100, 200, 300):
        bench.compute(range(start, start + 24))

    assert bench.compute(range(16)).miss_reason is MissReason.EVICTED


def test_a_prompt_below_a_block_is_too_short():
    bench = Bench()
    bench.compute(range(4))

    assert bench.compute(range(4)) == report(0, MissReason.TOO_SHORT)


def test_a_scored_prompt_is_not_looked_up():
    bench = Bench()
    bench.compute(range(9))

    assert bench.compute(range(9), prompt_logprobs=0) == report(0, MissReason.SCORED)


@pytest.mark.parametrize("window", [None, 6])
def test_what_was_cleared_was_never_seen(window):
    bench = Bench(window)
    bench.compute(range(9))

    assert bench.reuse.clear() == 2
    assert bench.reuse.clear() == 0
    assert bench.compute(range(9)).miss_reason is MissReason.NEVER_SEEN


def test_lookups_are_counted_by_what_came_of_them():
    bench = Bench()
    for prompt in (range(9), range(9), [*range(8), 0, 0, 0, 0, 0], range(3)):
        bench.compute(prompt)
    bench.reuse.clear()
    counters = bench.reuse.counters

    assert (counters.num_lookups, counters.num_hits, counters.num_complete) == (4, 2, 1)
    assert (counters.num_never_seen, counters.num_differs, counters.num_too_short) == (1, 1, 1)
    assert (counters.num_tokens, counters.num_cached_tokens) == (34, 16)
    assert counters.num_cleared_blocks == 3


def test_a_sequence_waits_for_the_block_that_another_computes():
    bench = Bench()
    first, second = bench.sequence(range(9)), bench.sequence(range(9))
    bench.reuse.attach(first)
    bench.reuse.claim(first)

    assert not bench.reuse.attach(second)
    assert bench.reuse.must_wait(second)
    bench.reuse.withdraw(first)
    assert not bench.reuse.must_wait(second)
