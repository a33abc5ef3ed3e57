"""Law 10: a seeded sequence draws the same tokens alone, in company and after preemption."""

import pytest

from tests.support.threaded_engine import threaded_engine, tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

PROMPT = tuple(range(60, 73))
TOKEN_BYTES = 2 * 2 * 2 * 16 * 8  # keys and values, two layers, two heads of 16 float64 numbers


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "llama")


def _request(request_id, seed, **sampling):
    return tiny_request(request_id, PROMPT, n=2, max_tokens=20, temperature=1.0, seed=seed, **sampling)


def test_the_same_seed_draws_the_same_tokens_in_company(checkpoint):
    with threaded_engine(checkpoint) as engine:
        ((first, second),) = engine.run(_request("alone", 5))
        company = engine.run(*[_request(f"r{seed}", seed) for seed in range(8)])

    assert [output.token_ids for output in company[5]] == [first.token_ids, second.token_ids]


def test_choices_and_seeds_draw_differently(checkpoint):
    with threaded_engine(checkpoint) as engine:
        company = engine.run(*[_request(f"r{seed}", seed) for seed in range(4)])

    assert len({tuple(output.token_ids) for own in company for output in own}) == 8


def test_preemption_repeats_no_draw_and_changes_none(checkpoint):
    few_blocks = {"block_size": 4, "kv_cache_bytes": 12 * 4 * TOKEN_BYTES}
    with threaded_engine(checkpoint) as engine:
        roomy = engine.run(*[_request(f"r{seed}", seed) for seed in range(4)])
    with threaded_engine(checkpoint, model={"max_context": 40}, cache=few_blocks) as engine:
        tight = engine.run(*[_request(f"r{seed}", seed) for seed in range(4)])
        num_steps = engine.load.num_steps

    assert [[o.token_ids for o in own] for own in tight] == [[o.token_ids for o in own] for own in roomy]
    assert num_steps > 60, "nothing was preempted"
