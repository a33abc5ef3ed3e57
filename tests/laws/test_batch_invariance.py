"""On the native kernels a sequence's log-probabilities are the same to the last bit, whatever else happens.

Whoever is computed beside it, in which chunks and blocks, and after how many preemptions.
"""

from dataclasses import dataclass
from pathlib import Path

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


@dataclass(frozen=True, kw_only=True)
class Case:
    """A checkpoint, its settings, and the bytes of its cache per position."""

    path: Path
    model: dict[str, object]
    kv_dtype: str
    position_bytes: int


def case_of(kind, folder):
    if kind == "Q4_1":  # two layers, two key heads of 64
        return Case(
            path=write_tiny_gguf(folder, "Q4_1"),
            model=NATIVE,
            kv_dtype="auto",
            position_bytes=2 * 2 * 2 * 64 * 2,
        )
    if kind == "bf16-window8":
        path = write_tiny_checkpoint(folder, "mistral", window=8)
        return Case(path=path, model=NATIVE, kv_dtype="auto", position_bytes=2 * 2 * 2 * 16 * 2)
    path = write_tiny_checkpoint(folder, "mistral", window=8, hidden_size=64)
    model = {**NATIVE, "quantization": "int4"}
    return Case(path=path, model=model, kv_dtype="int8", position_bytes=2 * 2 * 2 * (16 + 4))


@pytest.fixture(scope="module", params=["Q4_1", "bf16-window8", "int4-int8-cache"])
def checkpoint(request, tmp_path_factory):
    return case_of(request.param, tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def alone(checkpoint):
    """Each prompt's greedy continuation and its log-probabilities, computed alone in one chunk."""
    cache = {"kv_cache_bytes": 4 << 20, "kv_dtype": checkpoint.kv_dtype}
    with threaded_engine(checkpoint.path, model=checkpoint.model, cache=cache) as engine:
        return {prompt: engine.run(_request("r", prompt))[0][0] for prompt in PROMPTS}


def _request(request_id, prompt):
    return tiny_request(request_id, prompt, max_tokens=MAX_TOKENS, logprobs=True)


@settings(max_examples=20, derandomize=True, suppress_health_check=list(HealthCheck))
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
    num_blocks = -(-LONGEST // block_size) + 1 + num_spare_blocks
    with threaded_engine(
        checkpoint.path,
        model=checkpoint.model,
        cache={
            "block_size": block_size,
            "kv_cache_bytes": num_blocks * block_size * checkpoint.position_bytes,
            "kv_dtype": checkpoint.kv_dtype,
        },
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
    one_thread = {**checkpoint.model, "cpu_threads": 1}
    cache = {"kv_cache_bytes": 4 << 20, "kv_dtype": checkpoint.kv_dtype}
    with threaded_engine(checkpoint.path, model=one_thread, cache=cache) as engine:
        outputs = engine.run(*[_request(f"r{i}", prompt) for i, prompt in enumerate(PROMPTS)])

    for (output,), prompt in zip(outputs, PROMPTS, strict=True):
        assert output.logprobs == alone[prompt].logprobs


def test_asking_for_the_prompts_own_log_probabilities_changes_no_bit(checkpoint, alone):
    """Every row of the last layer is finished then, where else only a prompt's last one is."""
    cache = {"kv_cache_bytes": 4 << 20, "kv_dtype": checkpoint.kv_dtype}
    requests = [
        tiny_request(f"r{i}", prompt, max_tokens=MAX_TOKENS, logprobs=True, prompt_logprobs=0)
        for i, prompt in enumerate(PROMPTS)
    ]
    with threaded_engine(checkpoint.path, model=checkpoint.model, cache=cache) as engine:
        outputs = engine.run(*requests)

    for (output,), prompt in zip(outputs, PROMPTS, strict=True):
        assert output.logprobs == alone[prompt].logprobs
