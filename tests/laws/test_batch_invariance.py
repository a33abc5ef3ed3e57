"""On the native kernels a sequence's log-probabilities are the same to the last bit, whatever else happens.

Whoever is computed beside it, in which chunks and blocks, and after how many preemptions.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.native import needs_native
from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint, write_tiny_gguf

pytestmark = needs_native

PROMPTS = [tuple((7 * i + 3 * length) % 250 + 1 for i in range(length)) for length in (1, 5, 19, 40, 90)]
MAX_TOKENS = 12
LONGEST = max(map(len, PROMPTS)) + MAX_TOKENS
NATIVE = {"kernels": "native", "dtype": "auto", "cpu_threads": 2, "max_context": LONGEST}


def checkpoint_of(kind, folder):
    if kind == "Q4_1":
        return write_tiny_gguf(folder, "Q4_1"), 2 * 2 * 2 * 64 * 2  # two layers, two key heads of 64
    return write_tiny_checkpoint(folder, "mistral", window=8), 2 * 2 * 2 * 16 * 2


@pytest.fixture(scope="module", params=["Q4_1", "bf16-window8"])
def checkpoint(request, tmp_path_factory):
    """(path, bytes of cache per position)."""
    return checkpoint_of(request.param, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def alone(checkpoint):
    """Each prompt's greedy continuation and its log-probabilities, computed alone in one chunk."""
    with threaded_engine(checkpoint[0], model=NATIVE, cache={"kv_cache_bytes": 4 << 20}) as engine:
        return {prompt: engine.run(_request("r", prompt))[0][0] for prompt in PROMPTS}


def _request(request_id, prompt):
    return tiny_request(request_id, prompt, max_tokens=MAX_TOKENS, logprobs=True)


@settings(max_examples=20, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    prompts=st.lists(st.sampled_from(PROMPTS), min_size=1, max_size=8),
    block_size=st.integers(1, 20),
    max_chunk_tokens=st.integers(1, 100),
    spare_budget=st.integers(0, 100),
    max_running=st.integers(1, 8),
    num_spare_blocks=st.integers(0, 10),
)
def test_company_chunks_blocks_and_preemptions_change_no_bit(
    checkpoint, alone, prompts, block_size, max_chunk_tokens, spare_budget, max_running, num_spare_blocks
):
    path, position_bytes = checkpoint
    num_blocks = -(-LONGEST // block_size) + 1 + num_spare_blocks
    with threaded_engine(
        path,
        model=NATIVE,
        cache={"block_size": block_size, "kv_cache_bytes": num_blocks * block_size * position_bytes},
        scheduling={
            "max_step_tokens": max_running + spare_budget,
            "max_chunk_tokens": max_chunk_tokens,
            "max_running": max_running,
        },
    ) as engine:
        outputs = engine.run(*[_request(f"r{i}", prompt) for i, prompt in enumerate(prompts)])

    for (output,), prompt in zip(outputs, prompts, strict=True):
        assert output.token_ids == alone[prompt].token_ids
        assert output.logprobs == alone[prompt].logprobs


def test_the_number_of_threads_changes_no_bit(checkpoint, alone):
    one_thread = {**NATIVE, "cpu_threads": 1}
    with threaded_engine(checkpoint[0], model=one_thread, cache={"kv_cache_bytes": 4 << 20}) as engine:
        outputs = engine.run(*[_request(f"r{i}", prompt) for i, prompt in enumerate(PROMPTS)])

    for (output,), prompt in zip(outputs, PROMPTS, strict=True):
        assert output.logprobs == alone[prompt].logprobs
