"""Law 6 for what leaves the engine: log-probabilities, ranks and alternatives equal those of transformers."""

import pytest
import torch

from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import oracle_logits, oracle_model, write_tiny_checkpoint

TOLERANCE = 1e-4
PROMPT = tuple(range(40, 60))
NUM_TOP = 5
AWKWARD = {
    "logit_bias": ((65, 8.0), (70, -8.0)),
    "presence_penalty": 1.0,
    "repetition_penalty": 1.3,
    "min_p": 0.01,
    "dry_multiplier": 0.5,
    "bad_words_ids": ((66,), (67, 68)),
    "min_tokens": 3,
}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama")


@pytest.fixture(scope="module")
def oracle(checkpoint):
    return oracle_model(checkpoint)


def log_probabilities(oracle, token_ids):
    return oracle_logits(oracle, list(token_ids)).log_softmax(-1)


@pytest.mark.parametrize("temperature", [0.0, 1.0], ids=["greedy", "sampled"])
@pytest.mark.parametrize("sampling", [{}, AWKWARD], ids=["plain", "edited"])
@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_generated_tokens_are_scored_as_by_transformers(
    checkpoint, oracle, temperature, sampling, steps_in_flight
):
    request = tiny_request(
        "r",
        PROMPT,
        max_tokens=20,
        temperature=temperature,
        logprobs=True,
        num_top_logprobs=NUM_TOP,
        **sampling,
    )
    dials = {"model": {"dtype": "float32"}, "scheduling": {"steps_in_flight": steps_in_flight}}
    with threaded_engine(checkpoint, **dials) as engine:
        ((output,),) = engine.run(request)
    expected = log_probabilities(oracle, PROMPT + tuple(output.token_ids))[len(PROMPT) - 1 : -1]

    assert len(output.token_ids) == 20
    for row, token_id, logprob, rank, top in zip(
        expected, output.token_ids, output.logprobs, output.ranks, output.top, strict=True
    ):
        assert abs(logprob - row[token_id]) < TOLERANCE
        assert abs(row.sort(descending=True).values[rank - 1] - logprob) < TOLERANCE
        assert torch.allclose(torch.tensor(list(top.values())), row.topk(NUM_TOP).values, atol=TOLERANCE)
        assert torch.allclose(row[list(top)], row.topk(NUM_TOP).values, atol=TOLERANCE)
        if temperature == 0.0 and not sampling:
            assert logprob == max(top.values()), "the very float of the top one"


def test_a_long_prompt_is_scored_as_by_transformers_over_tiles_and_chunks(checkpoint, oracle):
    prompt = tuple(torch.randint(0, 256, (150,), generator=torch.Generator().manual_seed(3)).tolist())
    request = tiny_request("r", prompt, max_tokens=0, prompt_logprobs=NUM_TOP)
    dials = {"max_chunk_tokens": 70, "max_step_tokens": 70}
    with threaded_engine(checkpoint, model={"dtype": "float32"}, scheduling=dials) as engine:
        ((output,),) = engine.run(request)
    expected = log_probabilities(oracle, prompt)[:-1]
    chosen = expected.gather(-1, torch.tensor(prompt[1:])[:, None]).squeeze(-1)
    top = torch.tensor([logprob for scores in output.prompt for logprob in scores.top_logprobs])

    assert torch.allclose(torch.tensor(output.prompt_logprobs), chosen, atol=TOLERANCE)
    assert torch.allclose(top.view(-1, NUM_TOP), expected.topk(NUM_TOP).values, atol=TOLERANCE)


def test_scores_stay_with_their_request_in_company(checkpoint):
    requests = [
        tiny_request(
            f"r{k}", PROMPT[k:], max_tokens=6, logprobs=k % 2 == 0, num_top_logprobs=k if k % 2 == 0 else 0
        )
        for k in range(5)
    ]
    with threaded_engine(checkpoint) as engine:
        together = engine.run(*requests)
        alone = [engine.run(request)[0] for request in requests]

    assert [[o.token_ids for o in own] for own in together] == [[o.token_ids for o in own] for own in alone]
    assert [[list(t) for t in own[0].top] for own in together] == [
        [list(t) for t in own[0].top] for own in alone
    ]
    for own, lonely in zip(together, alone, strict=True):
        assert own[0].logprobs == pytest.approx(lonely[0].logprobs, abs=1e-9)
