import pickle

from engine.plan import Chunk, ChunkTable, Draw, StepPlan, StepResult
from engine.request import SamplingParams
from engine.token_scores import NO_SCORES
from tests.support.some_scores import some_scores

TABLE = ChunkTable(first_block=2, block_ids=(7, 3))
CHUNK = Chunk(
    sequence_id=5,
    start=40,
    stop=43,
    token_ids=(1, 2, 3),
    tables=(TABLE,),
    draw=Draw(
        sampling=SamplingParams(max_tokens=4, seed=9), choice=1, banned_ids=(2,), history=(1, 2), num_prompt=1
    ),
    score_from=41,
)
LOOKING_AHEAD = Chunk(sequence_id=6, start=10, stop=11, token_ids=(), tables=(TABLE,), takes_last_draw=True)


def test_a_plan_survives_pickling_and_compares_equal():
    plan = StepPlan(chunks=(CHUNK, LOOKING_AHEAD))

    assert pickle.loads(pickle.dumps(plan)) == plan


def test_a_result_survives_pickling_and_compares_equal():
    result = StepResult(
        token_ids=((4,), (), (5, 6)),
        logprobs=(some_scores(-0.5), NO_SCORES, NO_SCORES),
        scores=(NO_SCORES, some_scores(-1.0), NO_SCORES),
    )

    assert pickle.loads(pickle.dumps(result)) == result


def test_a_chunk_takes_its_positions_from_the_budget_also_those_whose_token_is_not_known_yet():
    assert (CHUNK.num_tokens, LOOKING_AHEAD.num_tokens) == (3, 1)


def test_a_step_computes_the_sum_of_its_chunks():
    assert StepPlan(chunks=(CHUNK, LOOKING_AHEAD)).num_tokens == 4


def test_a_plan_may_be_empty():
    assert StepPlan().num_tokens == 0


def test_plans_of_other_positions_are_not_equal():
    assert StepPlan(chunks=(CHUNK,)) != StepPlan(chunks=(LOOKING_AHEAD,))
