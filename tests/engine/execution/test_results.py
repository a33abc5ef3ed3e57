import pytest
import torch

from engine.errors import EngineCrashedError
from engine.execution.results import device_errors, to_result
from engine.plan import Chunk, Draw, StepPlan
from engine.request import SamplingParams
from engine.token_scores import NO_SCORES


def chunk(sequence_id, *, logprobs=False, draws=True, score_ids=()):
    sampling = SamplingParams(max_tokens=1, seed=0, logprobs=logprobs)
    draw = Draw(sampling=sampling, choice=0) if draws else None
    return Chunk(sequence_id, 0, 2, (1, 2), (), draw=draw, score_ids=score_ids)


def test_every_chunk_gets_its_own_share():
    plan = StepPlan(
        chunks=(chunk(1), chunk(2, logprobs=True), chunk(3, draws=False, score_ids=(4, 5)), chunk(4))
    )
    result = to_result(
        plan, (0, 1, 3), [7, 8, 9], [(-1.0, 2, [], [])], [(-2.0, 1, [], []), (-3.0, 5, [], [])]
    )

    assert result.token_ids == ((7,), (8,), (), (9,))
    assert [scores.logprobs for scores in result.logprobs] == [(), (-1.0,), (), ()]
    assert [scores.logprobs for scores in result.scores] == [(), (), (-2.0, -3.0), ()]


def test_where_nobody_asks_there_are_no_scores():
    result = to_result(StepPlan(chunks=(chunk(1),)), (0,), [7], [], [])

    assert result.logprobs == result.scores == (NO_SCORES,)


def test_an_error_of_the_device_ends_the_process_and_another_one_does_not():
    with pytest.raises(EngineCrashedError, match="the device failed"), device_errors():
        raise torch.AcceleratorError("gone")
    with pytest.raises(ValueError, match="odd"), device_errors():
        raise ValueError("odd")
