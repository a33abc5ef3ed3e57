from engine.cache.pool import CachePool
from engine.request import Request, SamplingParams
from engine.scheduling.inspection import gauges_of, view_of
from engine.scheduling.sequence import Sequence, make_sequences
from tests.support.specs import small_layout

LAYOUT = small_layout(8, None, block_size=4, max_chunk_tokens=4)


def computed_up_to(pool: CachePool, num_tokens: int) -> Sequence:
    """A sequence of 60 tokens, computed in chunks of 4."""
    sampling = SamplingParams(max_tokens=4, seed=0)
    request = Request(request_id="r", prompt_ids=tuple(range(60)), sampling=sampling, priority=3)
    (sequence,) = make_sequences(request, 5, [LAYOUT.new_tables()])
    for start in range(0, num_tokens, 4):
        pool.roll(sequence.tables, start)
        assert pool.reserve(sequence.tables, min(start + 4, num_tokens))
        sequence.num_computed = min(start + 4, num_tokens)
    return sequence


def test_a_view_tells_where_each_ring_stands():
    pool = CachePool(LAYOUT)
    view = view_of(computed_up_to(pool, 18))
    windowed, full = view.rings

    assert (windowed.window, windowed.base, windowed.length, windowed.max_blocks) == (8, 8, 10, 4)
    assert len(windowed.block_ids) == 3
    assert (full.window, full.base, full.length, len(full.block_ids)) == (None, 0, 18, 5)


def test_a_view_tells_who_it_is_and_how_far_it_got():
    view = view_of(computed_up_to(CachePool(LAYOUT), 18))

    assert (view.sequence_id, view.request_id, view.choice, view.priority) == (5, "r", 0, 3)
    assert (view.state, view.num_prompt_tokens, view.num_tokens, view.num_computed) == ("waiting", 60, 60, 18)


def test_gauges_tell_the_pool_and_the_longest_against_its_bound():
    pool = CachePool(LAYOUT)
    sequences = [computed_up_to(pool, 8), computed_up_to(pool, 56)]
    gauges = gauges_of(pool, sequences)
    held = [view_of(sequence).num_blocks for sequence in sequences]

    assert gauges.max_sequence_blocks == max(held)
    assert gauges.num_held == sum(held)
    assert gauges.sequence_blocks_bound == 4 + 16
    assert gauges.max_sequence_blocks <= gauges.sequence_blocks_bound


def test_an_empty_engine_holds_nothing():
    gauges = gauges_of(CachePool(LAYOUT), [])

    assert (gauges.max_sequence_blocks, gauges.num_held) == (0, 0)


def test_what_may_be_asked_for_again_is_evictable():
    pool = CachePool(LAYOUT)
    sequence = computed_up_to(pool, 8)
    sequence.chain.extend(sequence.token_ids)
    pool.remember(sequence.tables, sequence.chain.hashes, 0, 2)
    pool.release(sequence.tables)
    gauges = gauges_of(pool, [])

    assert (gauges.num_evictable, gauges.num_held, gauges.num_free) == (4, 0, 60)
