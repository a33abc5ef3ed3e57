from engine.cache.pool import BlockAllocator, CachePool
from engine.cache.prefix import HashChain
from tests.support.specs import small_layout


def windowed_pool(num_blocks=8, window=8):
    return CachePool(small_layout(window, block_size=4, num_blocks=num_blocks, max_chunk_tokens=4))


def full_pool(num_blocks=16):
    return CachePool(small_layout(None, block_size=4, num_blocks=num_blocks, max_chunk_tokens=4))


def test_the_block_given_back_last_is_taken_first():
    allocator = BlockAllocator(3)
    taken = [allocator.take() for _ in range(3)]
    allocator.give_back(taken[1])
    allocator.give_back(taken[2])

    assert allocator.take() == taken[2]


def test_a_shared_block_is_freed_by_its_last_owner():
    allocator = BlockAllocator(1)
    block_id = allocator.take()
    allocator.share(block_id)
    allocator.give_back(block_id)

    assert allocator.num_available == 0
    allocator.give_back(block_id)
    assert allocator.num_available == 1


def test_reserving_takes_whole_blocks():
    pool = windowed_pool()
    tables = pool.layout.new_tables()

    assert pool.reserve(tables, 5)
    assert pool.num_free_blocks == 6


def test_reserving_more_than_is_free_takes_nothing():
    pool = windowed_pool(num_blocks=4)
    blockers = pool.layout.new_tables()
    pool.reserve(blockers, 12)
    tables = pool.layout.new_tables()

    assert not pool.reserve(tables, 5)
    assert not tables[0].num_held
    assert pool.num_free_blocks == 1


def test_a_rolling_window_gets_the_block_back_that_it_gave_up():
    pool = windowed_pool()
    tables = pool.layout.new_tables()
    pool.reserve(tables, 12)
    first = tables[0].block_id(0)
    pool.roll(tables, 12)
    pool.reserve(tables, 13)

    assert tables[0].block_id(3) == first


def test_a_shared_block_is_released_not_overwritten():
    pool = windowed_pool()
    tables, followers = pool.layout.new_tables(), pool.layout.new_tables()
    pool.reserve(tables, 8)
    shared = tables[0].block_id(0)
    pool.attach(tables, followers, 8)
    pool.reserve(tables, 12)
    pool.roll(tables, 12)
    pool.reserve(tables, 16)

    assert pool.num_owners(shared) == 1
    assert shared not in tables[0].view().block_ids


def test_attaching_shares_only_what_the_window_still_shows():
    pool = windowed_pool(num_blocks=16)
    tables, followers = pool.layout.new_tables(), pool.layout.new_tables()
    for stop in range(4, 24, 4):
        pool.roll(tables, stop - 4)
        pool.reserve(tables, stop)
    pool.attach(tables, followers, 20)

    assert followers[0].view().first_block == 3
    assert followers[0].view().block_ids == tables[0].view().block_ids[-2:]


def test_releasing_twice_is_releasing_once():
    pool = windowed_pool()
    tables = pool.layout.new_tables()
    pool.reserve(tables, 12)
    pool.release(tables)
    pool.release(tables)

    assert pool.num_free_blocks == 8
    assert tables[0].next_block == 0


def test_a_sequence_of_twenty_windows_never_holds_more_than_its_ring():
    pool = windowed_pool()
    (table,) = tables = pool.layout.new_tables()
    held = []
    for position in range(160):
        pool.roll(tables, position)
        pool.reserve(tables, position + 1)
        held.append(table.num_held)

    assert max(held) == 3 <= table.ring_blocks == 4


def cached(pool, num_tokens, *, boundaries=()):
    """Compute a sequence of tokens 0, 1, 2 ... in steps of a block, then let it go; its hashes."""
    chain = HashChain(4)
    chain.extend(range(num_tokens))
    tables = pool.layout.new_tables()
    for stop in range(4, num_tokens + 1, 4):
        assert pool.reserve(tables, stop)
        pool.remember(tables, chain.hashes, stop // 4 - 1, stop // 4)
        pool.roll(tables, stop, boundaries)
    pool.release(tables)
    return chain.hashes


def hit(pool, hashes, max_tokens):
    tables = pool.layout.new_tables()
    num_tokens = pool.attach_cached(tables, hashes, max_tokens)
    pool.release(tables)
    return num_tokens


def test_what_a_sequence_computed_is_found_after_its_end():
    pool = full_pool()
    hashes = cached(pool, 20)

    assert hit(pool, hashes, 19) == 16
    assert pool.num_free_blocks == 16
    assert pool.num_evictable_blocks == 5


def test_of_a_windowed_sequence_the_last_window_is_enough():
    pool = windowed_pool(num_blocks=64)
    hashes = cached(pool, 40)

    assert hit(pool, hashes, 40) == 40


def test_the_end_of_a_cached_sequence_is_evicted_before_its_beginning():
    pool = full_pool()
    hashes = cached(pool, 20)
    pool.reserve(pool.layout.new_tables(), 13 * 4)

    assert hit(pool, hashes, 20) == 12


def test_free_blocks_are_taken_before_known_ones():
    pool = full_pool()
    hashes = cached(pool, 20)
    pool.reserve(pool.layout.new_tables(), 11 * 4)

    assert hit(pool, hashes, 20) == 20


def hit_under_pressure(*, boundaries):
    """A long windowed sequence, then others that need four blocks of ten: what is left of its beginning?"""
    pool = windowed_pool(num_blocks=10)
    cached(pool, 200, boundaries=boundaries)
    pool.reserve(pool.layout.new_tables(), 16)
    chain = HashChain(4)
    chain.extend(range(24))
    return hit(pool, chain.hashes, 24)


def test_the_window_at_a_boundary_outlasts_what_rolled_by_later():
    assert hit_under_pressure(boundaries=(20,)) >= 20


def test_without_the_boundary_it_is_gone():
    assert hit_under_pressure(boundaries=()) < 20


def test_what_was_seen_before_is_a_junction_even_when_it_is_gone():
    pool = windowed_pool(num_blocks=10)
    cached(pool, 200)
    chain = HashChain(4)
    chain.extend([*range(20), 99, 99, 99, 99])

    assert pool.junction(chain.hashes) == 20


def test_forgetting_leaves_held_blocks_alone():
    pool = full_pool()
    hashes = cached(pool, 8)
    tables = pool.layout.new_tables()
    pool.attach_cached(tables, hashes, 8)
    pool.forget_cached()

    assert tables[0].num_held == 2
    assert hit(pool, hashes, 8) == 0
    pool.release(tables)
    assert pool.num_free_blocks == 16


def test_what_is_forgotten_is_free_again():
    pool = full_pool()
    cached(pool, 8)

    assert pool.forget_cached() == 2
    assert (pool.num_evictable_blocks, pool.num_free_blocks) == (0, 16)
