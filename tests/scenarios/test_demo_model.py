"""SmolLM2 through the whole core: greedy text and log-probabilities are those of transformers.

Ours runs chunked, paged and in company; the oracle sees prompt and output in one full forward pass,
which says for every position what greedy decoding takes there.
"""

import pytest
import torch

from engine.text.tokenizer import Tokenizer
from tests.support.demo_oracle import demo_oracle
from tests.support.threaded_engine import threaded_engine, tiny_request

pytestmark = pytest.mark.demo_model

QUESTIONS = [
    "What is the capital of France?",
    "Explain in one paragraph why the sky is blue.",
    "Write a haiku about the sea.",
    "List three uses of a paper clip.",
    "Translate 'good morning' into Spanish.",
    "Who wrote Hamlet, and when?",
    "def fibonacci(n):",
    "What does a compiler do?",
    "Tell me a short story about a lighthouse keeper who finds a letter in a bottle. " * 3,
    "Summarise: the quick brown fox jumps over the lazy dog, again and again, until it is tired. " * 4,
]
NUM_TOKENS = 64
WINDOW = 48
TIE = 2e-3  # two float32 computations of one logit differ by less


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("window", "questions"), [(None, QUESTIONS[:6]), (WINDOW, QUESTIONS[5:])], ids=["full", "window48"]
)
def test_greedy_text_and_log_probabilities_are_those_of_transformers(demo_model_path, window, questions):
    tokenizer = Tokenizer.load(demo_model_path)
    prompts = [
        tuple(tokenizer.render_chat([{"role": "user", "content": text}]).token_ids) for text in questions
    ]
    requests = [
        tiny_request(f"r{i}", prompt, max_tokens=NUM_TOKENS, logprobs=True)
        for i, prompt in enumerate(prompts)
    ]
    with threaded_engine(
        demo_model_path,
        model={"dtype": "float32", "window": window, "kernels": "reference"},
        cache={"block_size": 16, "kv_cache_bytes": 64 << 20},
        scheduling={"max_chunk_tokens": 40, "max_step_tokens": 100},
    ) as engine:
        outputs = [output for (output,) in engine.run(*requests)]

    oracle = demo_oracle(demo_model_path, window)
    for prompt, output in zip(prompts, outputs, strict=True):
        with torch.inference_mode():
            logits = oracle(torch.tensor([[*prompt, *output.token_ids]]), use_cache=False).logits[0]
        rows = logits[len(prompt) - 1 : -1]
        chosen = rows.gather(-1, torch.tensor(output.token_ids)[:, None]).squeeze(-1)
        expected = chosen - rows.logsumexp(-1)

        assert len(output.token_ids) == NUM_TOKENS
        assert (rows.amax(-1) - chosen).max() <= TIE
        assert (torch.tensor(output.logprobs) - expected).abs().max() <= TIE
    if window is not None:
        assert all(len(prompt) + NUM_TOKENS > window for prompt in prompts)
