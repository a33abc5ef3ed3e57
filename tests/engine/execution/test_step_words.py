from engine.execution.step_words import StepWords
from engine.plan import Chunk, ChunkTable, Draw, StepPlan
from engine.request import SamplingParams

DRAW = Draw(sampling=SamplingParams(max_tokens=1, seed=0), choice=0)
FULL, WINDOWED = ChunkTable(0, (9, 8, 7)), ChunkTable(1, (5, 4))


def test_a_plan_becomes_its_chunks_words_behind_the_wanted_rows():
    decode = Chunk(1, 8, 9, (70,), (FULL, WINDOWED), draw=DRAW)
    prompt = Chunk(2, 0, 3, (1, 2, 3), (ChunkTable(0, (6,)), ChunkTable(0, (3,))))

    step = StepWords.of(StepPlan(chunks=(decode, prompt)), {})

    assert step.words.tolist() == [
        *(2, 1, 0),
        *(8, 1, 70, 0, 3, 9, 8, 7, 1, 2, 5, 4),
        *(0, 3, 1, 2, 3, 0, 1, 6, 0, 1, 3),
    ]
    assert (step.num_wanted, step.num_scored, step.stop) == (1, 0, 9)


def test_scored_rows_stand_before_drawn_ones():
    scored = Chunk(1, 4, 8, (1, 2, 3, 4), (FULL,), draw=DRAW, score_from=5, score_ids=(3, 4))
    plain = Chunk(2, 0, 1, (7,), (FULL,), draw=DRAW)

    step = StepWords.of(StepPlan(chunks=(plain, scored)), {})

    assert step.words.tolist()[:6] == [2, 4, 2, 3, 0, 4]
    assert step.num_scored == 2


def test_a_token_of_the_step_before_is_put_in():
    chunk = Chunk(5, 3, 4, (), (ChunkTable(0, (2,)),), takes_last_draw=True, draw=DRAW)

    step = StepWords.of(StepPlan(chunks=(chunk,)), {5: 44, 6: 45})

    assert step.words.tolist() == [1, 1, 0, 3, 1, 44, 0, 1, 2]
