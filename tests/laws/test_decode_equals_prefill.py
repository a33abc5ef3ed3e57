"""Law 5: scoring prompt and output in one chunk gives the log-probabilities that generation reported."""

import pytest
import torch

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
        whole = PROMPT + tuple(output.token_ids)
        ((scored,),) = engine.run(tiny_request("s", whole, max_tokens=0, prompt_logprobs=0))

    told = torch.tensor(scored.prompt_logprobs[len(PROMPT) - 1 :])
    assert scored.token_ids == []
    assert len(output.logprobs) == len(told) == 30
    assert torch.allclose(told, torch.tensor(output.logprobs), atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_a_prompt_has_the_same_scores_in_chunks_of_any_size(tmp_path, chunk):
    checkpoint = write_tiny_checkpoint(tmp_path, "mistral", window=8)
    prompt = tuple(range(30, 130))
    request = tiny_request("r", prompt, max_tokens=2, prompt_logprobs=3)
    with threaded_engine(checkpoint) as engine:
        ((expected,),) = engine.run(request)
    dials = {"max_chunk_tokens": chunk, "max_step_tokens": 64}
    with threaded_engine(checkpoint, scheduling=dials) as engine:
        ((found,), (alone,)) = engine.run(
            request, tiny_request("s", prompt, max_tokens=0, prompt_logprobs=3, priority=-1)
        )

    assert len(found.prompt_logprobs) == len(prompt) - 1
    assert found.prompt_logprobs == pytest.approx(expected.prompt_logprobs, abs=1e-9)
    assert alone.prompt_logprobs == pytest.approx(expected.prompt_logprobs, abs=1e-9)
    assert [i for s in found.prompt for i in s.top_ids] == [i for s in expected.prompt for i in s.top_ids]
