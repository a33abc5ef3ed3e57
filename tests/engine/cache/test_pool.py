from engine.cache.pool import BlockAllocator, CachePool
from tests.support.specs import small_layout


def windowed_pool(num_blocks=8, window=8):
    return CachePool(small_layout(window, block_size=4, num_blocks=num_blocks, max_chunk_tokens=4))


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
