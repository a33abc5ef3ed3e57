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


@pytest.mark.parametrize("steps_in_flight", [1, 2])
def test_every_way_to_draw_is_a_function_of_the_seed_alone(checkpoint, steps_in_flight):
    habits = [
        {},
        {"frequency_penalty": 1.0, "presence_penalty": 0.5},
        {"repetition_penalty": 1.2, "min_p": 0.05},
        {"dry_multiplier": 0.8, "typical_p": 0.9},
        {"xtc_probability": 0.5, "xtc_threshold": 0.02},
        {"logit_bias": ((65, 4.0),), "bad_words_ids": ((66,), (65, 67)), "min_tokens": 5},
        {"allowed_ids": tuple(range(60, 100))},
    ]
    requests = [_request(f"r{seed}", seed, **own) for seed, own in enumerate(habits)]
    with threaded_engine(checkpoint) as engine:
        alone = [engine.run(request)[0] for request in requests]
    with threaded_engine(checkpoint, scheduling={"steps_in_flight": steps_in_flight}) as engine:
        together = engine.run(*requests)

    assert [[o.token_ids for o in own] for own in together] == [[o.token_ids for o in own] for own in alone]
