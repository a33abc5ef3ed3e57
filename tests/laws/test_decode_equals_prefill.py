"""Law 5: scoring prompt and output in one chunk gives the log-probabilities that generation reported."""

import pytest
import torch

from engine.plan import Chunk, StepPlan
from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

PROMPT = tuple(range(40, 51))


@pytest.mark.parametrize("window", [None, 8], ids=["full", "window8"])
@pytest.mark.parametrize("temperature", [0.0, 1.5], ids=["greedy", "sampled"])
def test_generation_reports_the_log_probabilities_of_scoring(tmp_path, window, temperature):
    checkpoint = write_tiny_checkpoint(tmp_path, "mistral", window=window)
    request = tiny_request("r", PROMPT, max_tokens=30, temperature=temperature, logprobs=True)
    with threaded_engine(checkpoint, scheduling={"max_chunk_tokens": 64, "max_step_tokens": 64}) as engine:
        ((output,),) = engine.run(request)
        scores = _score(engine.built, PROMPT + tuple(output.token_ids), len(PROMPT))

    assert len(output.logprobs) == 30
    assert torch.allclose(torch.tensor(scores), torch.tensor(output.logprobs), atol=1e-9)


def _score(built, token_ids, num_prompt):
    """Log-probabilities of all tokens behind the prompt, computed in one chunk by the same runner."""
    tables = built.pool.layout.new_tables()
    assert built.pool.reserve(tables, len(token_ids))
    chunk = Chunk(
        sequence_id=0,
        start=0,
        stop=len(token_ids),
        token_ids=token_ids,
        tables=tuple(table.view() for table in tables),
        score_from=num_prompt - 1,
        score_ids=token_ids[num_prompt:],
    )
    runner = built.loop.runner
    (scores,) = runner.finish(runner.begin(StepPlan(chunks=(chunk,)))).scores
    return scores
