import torch

from engine.execution.row_answers import HEAD_TILE_ROWS, RowAnswers, to_result
from engine.execution.sampler import TorchSampler
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams
from engine.token_scores import NO_SCORES

TABLES = (ChunkTable(0, (0,)),)


def chunk(sequence_id, *, draws=True, logprobs=False, **fields):
    sampling = SamplingParams(max_tokens=1, seed=0, temperature=0.0, logprobs=logprobs)
    draw = Draw(sampling=sampling, choice=0) if draws else None
    return Chunk(sequence_id, 0, 1, (1,), TABLES, draw=draw, **fields)


def successors(hidden):
    """Logits whose largest is one above the number that is the hidden state."""
    logits = torch.zeros(len(hidden), 500)
    return logits.scatter_(1, hidden.long() + 1, 5.0)


def answers():
    return RowAnswers(successors, TorchSampler(), None)


def test_draws_begin_behind_the_scored_rows_and_go_over_all_tiles():
    chunks = [chunk(row) for row in range(HEAD_TILE_ROWS + 3)]
    hidden = torch.arange(len(chunks) + 2)[:, None].float()

    tiles, scored = answers().draw(chunks, 2, hidden, None)

    assert torch.cat(tiles).tolist() == [row + 3 for row in range(len(chunks))]
    assert scored == ()


def test_nothing_to_draw_is_nothing_drawn():
    assert answers().draw([], 0, torch.zeros(0, 1), None) == ((), ())


def test_every_chunk_gets_its_own_share_of_the_rows():
    asking = [
        chunk(1, logprobs=True),
        chunk(2, draws=False, score_ids=(3, 4), num_score_top=1),
        chunk(3, logprobs=True),
    ]
    plan = StepPlan(chunks=tuple(asking))
    scored = answers().score(plan, torch.tensor([3, 4]), torch.tensor([[2.0], [9.0]]))
    (token_ids,), drawn = answers().draw([asking[0], asking[2]], 0, torch.tensor([[7.0], [8.0]]), None)

    result = to_result(plan, token_ids.tolist(), drawn, scored)

    assert result.token_ids == ((8,), (), (9,))
    assert [scores.ranks for scores in result.logprobs] == [(1,), (), (1,)]
    assert [scores.ranks for scores in result.scores] == [(), (1, 2), ()]
    assert result.scores[1].top_ids == (3, 10)


def test_without_scores_no_chunk_has_any():
    result = to_result(StepPlan(chunks=(chunk(1), chunk(2, draws=False))), [5])

    assert result.token_ids == ((5,), ())
    assert result.logprobs == result.scores == (NO_SCORES, NO_SCORES)
