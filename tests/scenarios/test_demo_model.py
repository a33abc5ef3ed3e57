"""SmolLM2 through the whole core: greedy text and log-probabilities are those of transformers.

Ours runs chunked, paged and in company; the oracle sees prompt and output in one full forward pass,
which says for every position what greedy decoding takes there.
"""

import pytest

from tests.support.demo_scores import NUM_TOKENS, QUESTIONS, WINDOW, DemoScores, answers

pytestmark = [pytest.mark.demo_model, pytest.mark.timeout(300)]

TIE = 2e-3  # two float32 computations of one logit differ by less
WINDOWS = [pytest.param(None, id="full"), pytest.param(WINDOW, id="window48")]


@pytest.mark.parametrize("window", WINDOWS)
def test_greedy_text_and_log_probabilities_are_those_of_transformers(demo_model_path, window):
    found = answers(demo_model_path, window)

    oracle = DemoScores(demo_model_path, window)
    for answer in found:
        scores = oracle.of(answer.prompt, answer.token_ids)
        assert len(answer.token_ids) == NUM_TOKENS
        assert max(scores.below_best) <= TIE
        assert answer.logprobs == pytest.approx(scores.logprobs, abs=TIE, rel=0)
    if window is not None:
        assert all(len(answer.prompt) + NUM_TOKENS > window for answer in found)


@pytest.mark.slow
@pytest.mark.parametrize("window", WINDOWS)
def test_what_is_recorded_of_transformers_is_what_it_computes(demo_model_path, window):
    oracle = DemoScores(demo_model_path, window)

    assert len(oracle.recorded) == len(QUESTIONS[window])
    for (prompt, token_ids), scores in oracle.recorded.items():
        computed = oracle.compute(prompt, token_ids)
        assert computed.logprobs == pytest.approx(scores.logprobs, abs=TIE / 4, rel=0)
        assert computed.below_best == pytest.approx(scores.below_best, abs=TIE / 4, rel=0)
