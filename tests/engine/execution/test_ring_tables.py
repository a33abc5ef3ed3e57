"""Rings on the device against the tables of plans, whatever a sequence goes through."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.cache.pool import CachePool
from engine.execution.ring_tables import RingTables
from engine.plan import ChunkTable
from tests.support.specs import small_layout

CPU = torch.device("cpu")


def views(tables):
    return tuple(table.view() for table in tables)


def tell(rings, lane, tables):
    """Send the differences as a runner does; how many there were."""
    found = rings.differences(lane, tables)
    places = torch.tensor([place for place, _ in found], dtype=torch.int64)
    rings.entries.index_copy_(0, places, torch.tensor([block for _, block in found], dtype=torch.int64))
    return len(found)


def read(rings, lane, position):
    """{position: slot} of all that the query sees, in each group, as attention works it out."""
    lanes, positions = torch.tensor([lane]), torch.tensor([position])
    seen = []
    for batch in rings.group_batches(lanes, positions):
        first = 0 if batch.window is None else max(0, position - batch.window + 1)
        base, size = int(batch.base_positions), batch.block_size
        slots = {
            p: int(batch.tables[0, (p - base) // size]) * size + p % size for p in range(first, position + 1)
        }
        assert slots[position] == int(batch.slots)
        assert base % size == 0
        assert base <= first
        seen.append(slots)
    return seen


def expected(tables, position):
    return [
        {
            p: table.slots(p, p + 1)[0]
            for p in range(0 if table.window is None else max(0, position - table.window + 1), position + 1)
        }
        for table in tables
    ]


@settings(max_examples=60, derandomize=True)
@given(
    windows=st.sampled_from([(None,), (5,), (8,), (None, 6)]),
    block_size=st.integers(1, 5),
    acts=st.lists(
        st.tuples(st.integers(0, 2), st.sampled_from(["decode"] * 6 + ["chunk", "preempt", "unseen"])),
        max_size=60,
    ),
)
def test_a_lane_reads_what_the_tables_of_its_sequence_say(windows, block_size, acts):
    layout = small_layout(*windows, block_size=block_size, num_blocks=400, max_chunk_tokens=8)
    pool, rings = CachePool(layout), RingTables(layout, 3, CPU)
    sequences = [[layout.new_tables(), 0] for _ in range(3)]
    for lane, act in acts:
        tables, position = sequences[lane]
        if act == "preempt" or position > 50:
            pool.release(tables)
            sequences[lane][1] = 0
            continue
        length = 7 if act == "chunk" else 1
        pool.roll(tables, position)
        assert pool.reserve(tables, position + length)
        sequences[lane][1] = position + length
        if act == "unseen":
            continue  # computed in a step that does not use the rings
        tell(rings, lane, views(tables))

        assert read(rings, lane, position + length - 1) == expected(tables, position + length - 1)


def test_a_decode_that_fills_no_block_tells_nothing_and_one_that_begins_one_tells_it_alone():
    layout = small_layout(6, block_size=4, num_blocks=64)
    pool, rings, tables = CachePool(layout), RingTables(layout, 1, CPU), layout.new_tables()
    told = []
    for position in range(40):
        pool.roll(tables, position)
        assert pool.reserve(tables, position + 1)
        told.append(tell(rings, 0, views(tables)))

    assert told == [1, 0, 0, 0] * 10


def test_what_is_forgotten_is_told_again():
    layout = small_layout(None, block_size=4, num_blocks=64)
    rings = RingTables(layout, 1, CPU)
    tables = (ChunkTable(first_block=0, block_ids=(5, 9)),)
    assert tell(rings, 0, tables) == 2
    assert tell(rings, 0, tables) == 0
    rings.forget()

    assert tell(rings, 0, tables) == 2


def test_blocks_before_those_that_were_told_are_told_too():
    layout = small_layout(None, block_size=4, num_blocks=64)
    rings = RingTables(layout, 1, CPU)
    tell(rings, 0, (ChunkTable(first_block=2, block_ids=(7, 8)),))
    assert tell(rings, 0, (ChunkTable(first_block=0, block_ids=(5, 6, 7, 8)),)) == 2

    assert read(rings, 0, 15) == [{p: (5 + p // 4) * 4 + p % 4 for p in range(16)}]


def test_the_spare_lane_stays_outside_the_pool():
    layout = small_layout(None, 6, block_size=4, num_blocks=64)
    rings = RingTables(layout, 2, CPU)
    tell(rings, 0, (ChunkTable(first_block=0, block_ids=(5, 9)), ChunkTable(first_block=0, block_ids=(6, 7))))

    for batch in rings.group_batches(torch.tensor([rings.spare_lane]), torch.tensor([0])):
        assert batch.slots.tolist() == [64 * 4]
        assert set(batch.tables.flatten().tolist()) == {64}
