import torch

from engine.execution.link import HostLink
from engine.execution.philox import uniforms
from engine.execution.plain_draw import DrawKind
from engine.execution.ring_tables import RingTables
from engine.execution.step_columns import MAX_DIFFERENCES, NUM_TURNS, StepColumns
from engine.plan import Chunk, ChunkTable, Draw
from engine.request import SamplingParams
from tests.support.specs import small_layout

CPU = torch.device("cpu")


class WatchedFence:
    def __init__(self, log, number):
        self._log, self._number = log, number

    def wait(self):
        self._log.append(f"waited {self._number}")


class WatchedLink(HostLink):
    """Says when a buffer is given to the device, and when it is waited for."""

    def __init__(self):
        self.log = []

    def upload(self, source, destination):
        super().upload(source, destination)
        number = sum(line.startswith("sent") for line in self.log)
        self.log.append(f"sent {number}")
        return WatchedFence(self.log, number)


def make(link=None, *, num_lanes=4, max_context=64):
    layout = small_layout(None, block_size=4, num_blocks=9000, max_context=max_context)
    tables = RingTables(layout, num_lanes, CPU)
    return StepColumns(link or HostLink(), 8, tables, CPU), tables


def chunk(sequence_id, position, token_id=None, block_ids=(1, 2), **sampling):
    params = SamplingParams(max_tokens=1, seed=sequence_id, **sampling)
    return Chunk(
        sequence_id,
        position,
        position + 1,
        () if token_id is None else (token_id,),
        (ChunkTable(first_block=0, block_ids=block_ids),),
        takes_last_draw=token_id is None,
        draw=Draw(sampling=params, choice=1),
    )


def test_every_row_is_told_where_it_stands_and_how_it_draws():
    columns, tables = make()
    chunks = [chunk(11, 5, 7, temperature=0.0), chunk(12, 6, temperature=0.5, top_k=3, top_p=0.7, min_p=0.1)]
    columns.send([2, 0], chunks, DrawKind.TRUNCATED, 4, with_tables=True)
    rows = columns.rows(4)

    assert rows.lanes.tolist() == [2, 0, tables.spare_lane, tables.spare_lane]
    assert rows.positions.tolist() == [5, 6, 0, 0]
    assert rows.token_ids.tolist() == [7, -1, 0, 0]
    assert rows.draws.temperature.tolist() == [0.0, 0.5, 0.0, 0.0]
    assert rows.draws.top_k.tolist() == [0, 3, 0, 0]
    assert rows.draws.top_p.tolist() == [1.0, 0.7, 1.0, 1.0]
    assert rows.draws.min_p.tolist() == [0.0, 0.1, 0.0, 0.0]
    assert rows.draws.uniforms.tolist()[:2] == uniforms([11, 12], [1, 1], [6, 7])


def test_the_columns_of_a_step_stay_where_they_are():
    columns, _ = make()
    before = columns.rows(2).positions
    columns.send([0, 1], [chunk(1, 5, 7), chunk(2, 9, 7, (1, 2, 3))], DrawKind.GREEDY, 2, with_tables=True)

    assert before.tolist() == [5, 9]


def test_a_buffer_is_not_written_before_its_copy_is_done():
    link = WatchedLink()
    columns, _ = make(link)
    for position in range(NUM_TURNS + 2):
        columns.send([0], [chunk(1, position, 7)], DrawKind.GREEDY, 1, with_tables=True)

    assert link.log == ["sent 0", "sent 1", "sent 2", "waited 0", "sent 3", "waited 1", "sent 4"]


def test_more_differences_than_a_copy_holds_take_several():
    link = WatchedLink()
    columns, tables = make(link, num_lanes=3, max_context=16_384)
    blocks = [tuple(range(2500 * lane, 2500 * (lane + 1))) for lane in range(3)]
    chunks = [chunk(lane, 2500 * 4 - 1, 7, blocks[lane]) for lane in range(3)]
    columns.send([0, 1, 2], chunks, DrawKind.GREEDY, 4, with_tables=True)
    (batch,) = tables.group_batches(columns.rows(4).lanes, columns.rows(4).positions)

    assert [batch.tables[lane, :2500].tolist() for lane in range(3)] == [list(own) for own in blocks]
    assert sum(line.startswith("sent") for line in link.log) == -(-7500 // MAX_DIFFERENCES)
    assert columns.rows(4).positions.tolist() == [9999, 9999, 9999, 0]


def test_after_a_step_that_failed_the_tables_are_sent_anew():
    columns, tables = make()
    own = chunk(1, 5, 7)
    columns.send([0], [own], DrawKind.GREEDY, 1, with_tables=True)
    tables.entries.fill_(0)
    columns.forget()
    columns.send([0], [own], DrawKind.GREEDY, 1, with_tables=True)

    assert tables.entries[:2].tolist() == [1, 2]


def test_cleared_rows_are_nobodys():
    columns, tables = make()
    columns.clear(3)

    assert columns.rows(3).lanes.tolist() == [tables.spare_lane] * 3
    assert columns.rows(3).draws.temperature.tolist() == [0.0] * 3
