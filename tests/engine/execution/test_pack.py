import torch

from engine.execution.pack import pack
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams
from tests.support.specs import small_layout

DRAW = Draw(sampling=SamplingParams(max_tokens=1, seed=0), choice=0)
PROMPT = Chunk(
    sequence_id=1,
    start=2,
    stop=6,
    token_ids=(12, 13, 14, 15),
    tables=(ChunkTable(first_block=0, block_ids=(5, 3)),),
)
DECODE = Chunk(
    sequence_id=2,
    start=9,
    stop=10,
    token_ids=(),
    tables=(ChunkTable(first_block=1, block_ids=(7, 2)),),
    takes_last_draw=True,
    draw=DRAW,
)


def packed(*chunks):
    return pack(StepPlan(chunks=chunks), small_layout(8, block_size=4), torch.device("cpu"))


def test_chunks_lie_end_to_end():
    batch = packed(PROMPT, DECODE).batch

    assert batch.token_ids.tolist() == [12, 13, 14, 15, 0]
    assert batch.positions.tolist() == [2, 3, 4, 5, 9]
    assert batch.row_starts == (0, 4, 5)
    assert batch.starts == (2, 9)


def test_every_token_has_its_slot():
    (group,) = packed(PROMPT, DECODE).batch.groups

    assert group.slots.tolist() == [22, 23, 12, 13, 9]


def test_tables_are_padded_to_the_longest_and_know_their_first_position():
    short = Chunk(
        sequence_id=3, start=0, stop=1, token_ids=(9,), tables=(ChunkTable(first_block=0, block_ids=(4,)),)
    )
    (group,) = packed(PROMPT, DECODE, short).batch.groups

    assert group.tables.tolist() == [[5, 3], [7, 2], [4, 0]]
    assert group.bases == (0, 4, 0)


def test_bounds_of_chunks_and_tables_are_on_the_device_too():
    batch = packed(PROMPT, DECODE).batch

    assert batch.row_bounds.tolist() == list(batch.row_starts)
    assert batch.groups[0].base_positions.tolist() == list(batch.groups[0].bases)


def test_only_chunks_that_draw_want_their_last_row():
    step = packed(PROMPT, DECODE)

    assert step.batch.wanted_rows.tolist() == [4]
    assert step.drawing == (1,)
    assert step.taken == ((4, 2),)


def test_scored_rows_come_first():
    scored = Chunk(
        sequence_id=1,
        start=2,
        stop=6,
        token_ids=(12, 13, 14, 15),
        tables=PROMPT.tables,
        draw=DRAW,
        score_from=3,
        score_ids=(14, 15),
    )
    step = packed(DECODE, scored)

    assert step.batch.wanted_rows.tolist() == [2, 3, 0, 4]
    assert step.num_scored == 2
    assert step.score_ids.tolist() == [14, 15]


def test_each_cache_group_has_its_own_places():
    chunk = Chunk(
        sequence_id=1,
        start=4,
        stop=6,
        token_ids=(1, 2),
        tables=(ChunkTable(first_block=0, block_ids=(5, 3)), ChunkTable(first_block=1, block_ids=(9,))),
    )
    step = pack(StepPlan(chunks=(chunk,)), small_layout(None, 8, block_size=4), torch.device("cpu"))

    assert [group.slots.tolist() for group in step.batch.groups] == [[12, 13], [36, 37]]
    assert [group.window for group in step.batch.groups] == [None, 8]
