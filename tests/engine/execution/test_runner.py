"""The runner with a model that is a lookup table: what comes back for which chunk."""

from concurrent.futures import Future

import numpy as np
import pytest
import torch

from engine.cache.store import CacheStore
from engine.errors import EngineCrashedError
from engine.execution.philox import uniforms
from engine.execution.row_answers import HEAD_TILE_ROWS
from engine.execution.runner import ModelRunner
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams
from engine.token_scores import NO_SCORES
from tests.support.specs import small_layout, small_spec

CPU = torch.device("cpu")
TABLES = (ChunkTable(first_block=0, block_ids=tuple(range(40))),)


class SuccessorModel:
    """Its most probable token after t is t + 1; it counts how many rows of logits exist at once."""

    def __init__(self, vocab_size=1000):
        self.vocab_size = vocab_size
        self.tiles = []

    def __call__(self, batch, caches):
        return batch.token_ids[batch.wanted_rows, None].double()

    def logits(self, hidden):
        self.tiles.append(len(hidden))
        logits = torch.zeros(len(hidden), self.vocab_size, dtype=torch.float64)
        successors = (hidden.long() + 1) % self.vocab_size
        return logits.scatter_(1, successors, 5.0)


class SomeMasks:
    """Allows each sequence the one token that it was told, and keeps who asked."""

    def __init__(self, **tokens):
        self.tokens = {int(name[1:]): token_id for name, token_id in tokens.items()}
        self.asked = []

    def fill(self, sequence_ids):
        self.asked.append(tuple(sequence_ids))
        bits = np.zeros((len(sequence_ids), 32), dtype=np.int32)
        for row, sequence_id in enumerate(sequence_ids):
            token_id = self.tokens[sequence_id]
            bits[row, token_id // 32] = np.array(1 << token_id % 32, dtype=np.uint32).astype(np.int32)
        filled = Future()
        filled.set_result(bits)
        return filled


def make_runner(model=None, masks=None):
    layout = small_layout(None, num_blocks=64, max_context=200)
    store = CacheStore.allocate(layout, small_spec(None), device=CPU, dtype=torch.float32)
    return ModelRunner(model or SuccessorModel(), store, layout, masks=masks)


def chunk(sequence_id, token_ids, *, start=0, draw=True, logprobs=False, masked=False, **fields):
    sampling = SamplingParams(max_tokens=1, seed=0, temperature=0.0, logprobs=logprobs)
    return Chunk(
        sequence_id=sequence_id,
        start=start,
        stop=start + len(token_ids) + fields.get("takes_last_draw", False),
        token_ids=tuple(token_ids),
        tables=TABLES,
        draw=Draw(sampling=sampling, choice=0, is_masked=masked) if draw else None,
        **fields,
    )


def run(runner, *chunks):
    return runner.finish(runner.begin(StepPlan(chunks=chunks)))


def test_each_drawing_chunk_gets_its_own_token():
    result = run(make_runner(), chunk(1, [5, 6]), chunk(2, [9], draw=False), chunk(3, [7]))

    assert result.token_ids == ((7,), (), (8,))


def test_log_probabilities_come_only_for_those_who_ask():
    result = run(make_runner(), chunk(1, [5], logprobs=True), chunk(2, [6]))
    expected = 5.0 - torch.log(torch.tensor(999 + 5.0).double().new_tensor(999.0) + torch.tensor(5.0).exp())

    assert result.logprobs[1] == NO_SCORES
    assert result.logprobs[0].logprobs[0] == pytest.approx(float(expected))


def test_scores_are_of_the_tokens_that_were_asked_about():
    result = run(
        make_runner(),
        chunk(1, [5, 6, 7], draw=False, score_from=0, score_ids=(6, 9)),
        chunk(2, [8, 9], score_from=0, score_ids=(9,)),
    )

    assert [len(scores) for scores in result.scores] == [2, 1]
    assert result.scores[0].logprobs[0] - result.scores[0].logprobs[1] == pytest.approx(5.0)
    assert result.scores[1].logprobs == pytest.approx(result.scores[0].logprobs[:1])
    assert result.token_ids == ((), (10,))


def test_a_long_scored_prompt_is_scored_in_tiles():
    model = SuccessorModel()
    token_ids = list(range(150))
    run(make_runner(model), chunk(1, token_ids, draw=False, score_from=0, score_ids=tuple(token_ids[1:])))

    assert max(model.tiles) <= HEAD_TILE_ROWS
    assert sum(model.tiles) == 149


def test_a_chunk_takes_the_token_that_the_step_in_flight_drew():
    runner = make_runner()
    first = runner.begin(StepPlan(chunks=(chunk(1, [5]),)))
    second = runner.begin(StepPlan(chunks=(chunk(1, [], start=1, takes_last_draw=True),)))

    assert runner.finish(first).token_ids == ((6,),)
    assert runner.finish(second).token_ids == ((7,),)


def test_a_lost_device_is_told_apart_from_a_failed_step():
    class BrokenModel(SuccessorModel):
        def __call__(self, batch, caches):
            raise torch.AcceleratorError("gone")

    with pytest.raises(EngineCrashedError, match="the device failed"):
        run(make_runner(BrokenModel()), chunk(1, [5]))


def test_a_masked_draw_takes_what_its_own_mask_allows_and_the_others_what_they_would():
    masks = SomeMasks(s2=999, s4=31)
    chunks = (chunk(1, [5]), chunk(2, [6], masked=True), chunk(3, [7]), chunk(4, [8], masked=True))

    result = run(make_runner(masks=masks), *chunks)
    assert result.token_ids == ((6,), (999,), (8,), (31,))
    assert masks.asked == [(2, 4)]


def test_masks_go_with_their_rows_over_the_bounds_of_tiles():
    num_rows = 2 * HEAD_TILE_ROWS + 3
    masked = {row for row in range(num_rows) if row % 3 == 0 and row // HEAD_TILE_ROWS != 1}
    masks = SomeMasks(**{f"s{row}": 500 + row for row in masked})
    chunks = [chunk(row, [row], masked=row in masked) for row in range(num_rows)]

    drawn = run(make_runner(masks=masks), *chunks).token_ids
    assert drawn == tuple((500 + row,) if row in masked else (row + 1,) for row in range(num_rows))


def test_a_masked_draw_is_scored_by_the_raw_logits():
    masks = SomeMasks(s1=999)
    (scores,) = run(make_runner(masks=masks), chunk(1, [5], masked=True, logprobs=True)).logprobs

    assert scores.ranks == (2,)


def test_masks_are_asked_for_only_where_a_draw_is_masked():
    masks = SomeMasks()
    run(make_runner(masks=masks), chunk(1, [5]))

    assert masks.asked == []


def test_a_draw_is_made_with_the_number_of_the_position_behind_its_chunk():
    class Flat(SuccessorModel):
        def logits(self, hidden):
            return torch.zeros(len(hidden), self.vocab_size, dtype=torch.float64)

    sampling = SamplingParams(max_tokens=9, seed=11)
    chunks = [
        chunk(start, [5] * 2, start=start)._replace(draw=Draw(sampling=sampling, choice=0))
        for start in (0, 1, 5)
    ]
    drawn = [own[0] for own in run(make_runner(Flat()), *chunks).token_ids]
    expected = [int(1000 * number) for number in uniforms([11] * 3, [0] * 3, [2, 3, 7])]

    assert drawn == expected
