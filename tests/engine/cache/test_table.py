from engine.cache.table import BlockTable
from engine.plan import ChunkTable


def table_with(block_ids, *, ring_blocks=3, block_size=4, window=8):
    table = BlockTable(window=window, ring_blocks=ring_blocks, block_size=block_size)
    for block_id in block_ids:
        if table.num_held == ring_blocks:
            table.drop_first()
        table.append(block_id)
    return table


def test_a_position_lies_in_its_block_at_its_offset():
    table = table_with([7, 2, 9])

    assert table.slots(0, 12) == [28, 29, 30, 31, 8, 9, 10, 11, 36, 37, 38, 39]


def test_the_ring_rolls_over():
    table = table_with([7, 2, 9, 5])

    assert table.slots(12, 16) == [20, 21, 22, 23]
    assert table.first_block == 1


def test_the_view_is_rotated_oldest_first():
    table = table_with([7, 2, 9, 5, 6])

    assert table.view() == ChunkTable(first_block=2, block_ids=(9, 5, 6))


def test_a_view_taken_earlier_does_not_change():
    table = table_with([7, 2])
    earlier = table.view()
    table.append(9)

    assert earlier == ChunkTable(first_block=0, block_ids=(7, 2))
    assert table.view().block_ids == (7, 2, 9)


def test_the_first_live_block_is_the_one_the_window_still_touches():
    table = table_with([], window=8)

    assert [table.first_live_block(n) for n in (0, 7, 10, 11, 14, 15)] == [0, 0, 0, 1, 1, 2]


def test_without_a_window_everything_stays_live():
    table = table_with([], window=None)

    assert table.first_live_block(1000) == 0


def test_a_table_may_begin_behind_what_is_out_of_sight():
    table = table_with([])
    table.begin_at(5)
    table.append(1)

    assert table.slots(20, 22) == [4, 5]
