"""Law 4: the same request gives the same tokens, whatever the chunks, the neighbours, preemptions and
what is cached.

In float64, where rounding cannot decide a tie.
"""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

PROMPTS = [tuple((7 * i + 3 * length) % 250 + 1 for i in range(length)) for length in (1, 5, 8, 19, 40)]
MAX_TOKENS = 12
TOKEN_BYTES = 2 * 2 * 2 * 16 * 8  # keys and values, two layers, two heads of 16 float64 numbers


@pytest.fixture(scope="module", params=[None, 8], ids=["full", "window8"])
def checkpoint(request, tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "mistral", window=request.param)


@pytest.fixture(scope="module")
def alone(checkpoint):
    """Each prompt's greedy and seeded continuation, computed alone in one chunk."""
    with threaded_engine(checkpoint) as engine:
        return {
            (prompt, temperature): [
                output.token_ids for output in engine.run(_request("r", prompt, temperature))[0]
            ]
            for prompt in PROMPTS
            for temperature in (0.0, 1.0)
        }


def _request(request_id, prompt, temperature):
    return tiny_request(
        request_id, prompt, n=2, max_tokens=MAX_TOKENS, temperature=temperature, seed=11, top_p=0.9
    )


@settings(max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
@given(
    picks=st.lists(st.tuples(st.sampled_from(PROMPTS), st.sampled_from([0.0, 1.0])), min_size=1, max_size=5),
    block_size=st.integers(1, 6),
    max_chunk_tokens=st.integers(1, 20),
    spare_budget=st.integers(0, 20),
    max_running=st.integers(1, 6),
    num_spare_blocks=st.integers(0, 10),
    steps_in_flight=st.integers(1, 2),
    has_prefix_cache=st.booleans(),
)
def test_chunks_neighbours_preemptions_and_cached_prefixes_change_no_token(
    checkpoint,
    alone,
    picks,
    block_size,
    max_chunk_tokens,
    spare_budget,
    max_running,
    num_spare_blocks,
    steps_in_flight,
    has_prefix_cache,
):
    block_bytes = block_size * TOKEN_BYTES
    longest = -(-(max(map(len, PROMPTS)) + MAX_TOKENS) // block_size) + 1
    with threaded_engine(
        checkpoint,
        model={"max_context": max(map(len, PROMPTS)) + MAX_TOKENS},
        cache={
            "block_size": block_size,
            "kv_cache_bytes": (longest + num_spare_blocks) * block_bytes,
            "has_prefix_cache": has_prefix_cache,
        },
        scheduling={
            "max_step_tokens": max_running + spare_budget,
            "max_chunk_tokens": max_chunk_tokens,
            "max_running": max_running,
            "steps_in_flight": steps_in_flight,
        },
    ) as engine:
        outputs = engine.run(*[_request(f"r{i}", *pick) for i, pick in enumerate(picks)])

    for own, pick in zip(outputs, picks, strict=True):
        assert [output.token_ids for output in own] == alone[pick]
