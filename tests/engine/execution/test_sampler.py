import math

import numpy as np
import pytest
import torch

from engine.execution.sampler import distribution, edit, sample
from engine.execution.sampling_rows import SamplingRows
from engine.plan import Draw
from engine.request import SamplingParams

LOGITS = torch.log(torch.tensor([[0.5, 0.25, 0.125, 0.125]], dtype=torch.float64))


def draws(*params, choice=0):
    return [
        Draw(sampling=SamplingParams(max_tokens=1, **{"seed": 0, **own}), choice=choice) for own in params
    ]


def rows(own, positions=None):
    positions = positions or [0] * len(own)
    return SamplingRows.gather(own, positions, like=LOGITS)


def frequencies(num_draws, **params):
    own = draws(*[{**params, "seed": seed} for seed in range(num_draws)])
    token_ids, _ = sample(LOGITS.repeat(num_draws, 1), rows(own))
    return (torch.bincount(token_ids, minlength=4) / num_draws).tolist()


def test_a_greedy_row_takes_the_largest_logit():
    token_ids, scores = sample(LOGITS, rows(draws({"temperature": 0.0})))

    assert token_ids.tolist() == [0]
    assert scores is None


def test_the_distribution_is_that_of_the_logits():
    assert torch.allclose(
        torch.tensor(frequencies(20_000)), torch.tensor([0.5, 0.25, 0.125, 0.125]), atol=0.015
    )


def test_temperature_sharpens_the_distribution():
    expected = torch.tensor([0.25, 0.0625, 0.015625, 0.015625])

    assert torch.allclose(
        torch.tensor(frequencies(20_000, temperature=0.5)), expected / expected.sum(), atol=0.015
    )


def test_top_k_draws_nothing_else():
    first, _, *others = frequencies(5_000, top_k=2)

    assert others == [0.0, 0.0]
    assert abs(first - 2 / 3) < 0.03


def test_top_p_draws_nothing_else():
    assert frequencies(2_000, top_p=0.6)[2:] == [0.0, 0.0]


def test_a_seeded_row_draws_the_same_alone_and_in_company():
    params = [
        {"seed": 5},
        {"temperature": 0.0},
        {"seed": 9, "top_p": 0.9},
        {"seed": 11, "top_k": 3},
        {"seed": 12, "min_p": 0.2, "typical_p": 0.8},
        {"seed": 13, "xtc_probability": 0.5, "xtc_threshold": 0.05},
        {"seed": 14, "logit_bias": ((3, 5.0),), "allowed_ids": (3, 4, 5)},
        {"temperature": 0.0, "logit_bias": ((7, 50.0),)},
    ]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(8, 50, generator=generator, dtype=torch.float64)
    together, _ = sample(logits, rows(draws(*params), list(range(3, 11))))
    alone = [sample(logits[i : i + 1], rows(draws(own), [3 + i]))[0].item() for i, own in enumerate(params)]

    assert together.tolist() == alone


def test_log_probabilities_are_of_the_raw_logits():
    own = draws({"temperature": 0.1, "logprobs": True, "seed": 1})
    token_ids, scores = sample(LOGITS * 3 + 7, rows(own))

    assert torch.allclose(scores.logprobs, (LOGITS * 3).log_softmax(-1)[0, token_ids])


def test_a_masked_token_is_never_drawn_at_the_edges():
    logits = torch.full((2, 4), -torch.inf, dtype=torch.float64)
    logits[:, 1:3] = 0.0
    edges = SamplingRows(
        random_rows=torch.tensor([0, 1]),
        uniforms=torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64),
        temperature=torch.ones(2, dtype=torch.float64),
    )

    assert sample(logits, edges)[0].tolist() == [1, 2]


def probabilities(history=(), num_prompt=0, banned_ids=(), position=0, **params):
    """The distribution a single draw from LOGITS is made from."""
    sampling = SamplingParams(**{"max_tokens": 1, "seed": 0, **params})
    draw = Draw(sampling=sampling, choice=0, history=history, num_prompt=num_prompt, banned_ids=banned_ids)
    own = rows([draw], [position])
    edited = LOGITS if own.edits is None else edit(LOGITS, own.edits)
    return distribution(edited, own)[0].tolist()


def normalized(*weights):
    return pytest.approx([weight / sum(weights) for weight in weights], abs=1e-12)


def test_a_bias_multiplies_a_probability_by_its_exponential():
    assert probabilities(logit_bias=((2, math.log(4)),)) == normalized(0.5, 0.25, 0.5, 0.125)


def test_only_allowed_tokens_are_drawn():
    assert probabilities(allowed_ids=(1, 3)) == normalized(0, 0.25, 0, 0.125)


def test_banned_tokens_are_not_drawn():
    assert probabilities(banned_ids=(0, 2)) == normalized(0, 0.25, 0, 0.125)


def test_where_every_token_is_banned_the_ban_is_lifted():
    assert probabilities(allowed_ids=(1,), banned_ids=(1,)) == [0, 1, 0, 0]


def test_a_bad_word_is_never_completed():
    words = ((9, 1), (3,), (8, 2))

    assert probabilities(history=(9,), bad_words_ids=words) == normalized(0.5, 0, 0.125, 0)


def test_presence_and_frequency_penalties_count_the_output_alone():
    found = probabilities(history=(3, 3, 0, 1, 1), num_prompt=2, presence_penalty=0.5, frequency_penalty=0.25)

    once, twice = math.exp(-0.75), math.exp(-1.0)
    assert found == normalized(0.5 * once, 0.25 * twice, 0.125, 0.125)


def test_a_repetition_penalty_counts_prompt_and_output_once():
    # Logits are negative here, so the penalty multiplies: p becomes p ** 2.
    found = probabilities(history=(0, 1, 1), num_prompt=1, repetition_penalty=2.0)

    assert found == normalized(0.5**2, 0.25**2, 0.125, 0.125)


def test_dry_takes_more_the_longer_the_run():
    found = probabilities(
        history=(5, 6, 7, 2, 6, 7, 1, 5, 6, 7), dry_multiplier=0.5, dry_base=2.0, dry_allowed_length=2
    )

    assert found == normalized(0.5, 0.25 * math.exp(-0.5), 0.125 * math.exp(-1.0), 0.125)


def test_min_p_is_relative_to_the_most_probable():
    assert probabilities(min_p=0.4) == normalized(0.5, 0.25, 0, 0)


def test_typical_p_keeps_what_is_nearest_to_the_entropy():
    # The entropy is 1.75 bits; the surprises are 1, 2, 3 and 3 bits: token 1 is the nearest, then token 0.
    assert probabilities(typical_p=0.2) == [0, 1, 0, 0]
    assert probabilities(typical_p=0.6) == normalized(0.5, 0.25, 0, 0)


def test_xtc_leaves_the_least_probable_of_the_top():
    assert probabilities(xtc_probability=1.0, xtc_threshold=0.2) == normalized(0, 0.25, 0.125, 0.125)


def test_xtc_with_a_single_top_choice_changes_nothing():
    assert probabilities(xtc_probability=1.0, xtc_threshold=0.3) == normalized(0.5, 0.25, 0.125, 0.125)


def test_xtc_applies_as_often_as_asked_and_by_a_coin_of_the_position():
    found = [
        probabilities(xtc_probability=0.3, xtc_threshold=0.2, position=place)[0] == 0 for place in range(2000)
    ]

    assert abs(sum(found) / 2000 - 0.3) < 0.03


def test_a_greedy_row_takes_the_largest_after_bias_and_penalties():
    biased, _ = sample(LOGITS, rows(draws({"temperature": 0.0, "logit_bias": ((3, 5.0),)})))
    params = SamplingParams(max_tokens=9, seed=0, temperature=0.0, frequency_penalty=2.0)
    penalized, _ = sample(LOGITS, rows([Draw(sampling=params, choice=0, history=(0,))]))

    assert (biased.item(), penalized.item()) == (3, 1)


def test_scores_are_of_the_raw_logits_whatever_was_edited():
    before = LOGITS.clone()
    own = {"temperature": 0.0, "logit_bias": ((3, 5.0),), "logprobs": True, "num_top_logprobs": 2}
    _, scores = sample(LOGITS, rows(draws(own)))

    assert torch.equal(LOGITS, before)
    assert scores.logprobs.exp().tolist() == pytest.approx([0.125])
    assert scores.ranks.tolist() == [3]
    assert scores.top_ids.tolist() == [[0, 1]]


def test_only_rows_that_ask_are_scored():
    own = draws({"temperature": 0.0}, {"temperature": 0.0, "logprobs": True}, {"seed": 3})
    _, scores = sample(LOGITS.repeat(3, 1), rows(own))

    assert scores.logprobs.shape == (1,)


SINGLE = torch.randn(3, 100, generator=torch.Generator().manual_seed(3)) * 20  # in the dtype of real heads
EXTREMES = {
    "subnormal temperature": {"temperature": 5e-324},
    "temperature that is 0 in single precision": {"temperature": 1e-50},
    "small temperature": {"temperature": 1e-37},
    "temperature just above greedy": {"temperature": 1.0001e-5},
    "subnormal min_p": {"min_p": 5e-324},
    "min_p 1": {"min_p": 1.0},
    "subnormal top_p": {"top_p": 5e-324},
    "top_p just below 1": {"top_p": 1.0 - 1e-16},
    "subnormal typical_p": {"typical_p": 5e-324},
    "xtc at 0 behind top_k": {"xtc_probability": 1.0, "xtc_threshold": 0.0, "top_k": 2},
    "subnormal xtc_threshold": {"xtc_probability": 1.0, "xtc_threshold": 5e-324, "top_p": 0.5},
    "largest penalties": {"frequency_penalty": 2.0, "presence_penalty": 2.0, "repetition_penalty": 100.0},
    "most negative penalties": {"frequency_penalty": -2.0, "repetition_penalty": 0.01},
    "dry without end": {"dry_multiplier": 100.0, "dry_base": 1000.0, "dry_allowed_length": 0},
    "a bias on every token": {"logit_bias": tuple((i, -100.0) for i in range(100)), "temperature": 2.0},
    "all at once": {"temperature": 1e-4, "top_k": 3, "top_p": 1e-300, "min_p": 1.0, "typical_p": 1e-300},
}


@pytest.mark.parametrize("own", EXTREMES.values(), ids=EXTREMES)
def test_extreme_parameters_draw_a_token_of_the_vocabulary_and_leave_the_neighbours_alone(own):
    params = SamplingParams(**{"max_tokens": 1, "seed": 1, **own})
    extreme = Draw(sampling=params, choice=0, history=(7,) * 500, num_prompt=1)
    first, last = draws({"seed": 5}, {"seed": 6})
    rows_of_all = SamplingRows.gather([first, extreme, last], [4, 4, 4], like=SINGLE)
    without = SamplingRows.gather([first, last], [4, 4], like=SINGLE)
    token_ids, _ = sample(SINGLE, rows_of_all)
    edited = SINGLE if rows_of_all.edits is None else edit(SINGLE, rows_of_all.edits)

    if rows_of_all.random_rows is not None and 1 in rows_of_all.random_rows:
        drawn_from = distribution(edited[rows_of_all.random_rows], rows_of_all)[1]
        assert drawn_from.sum().item() == pytest.approx(1.0)
        assert drawn_from[token_ids[1]] > 0
    else:
        assert token_ids[1] == edited[1].argmax()
    assert token_ids[[0, 2]].tolist() == sample(SINGLE[[0, 2]], without)[0].tolist()


@pytest.mark.parametrize("broken", [torch.nan, -torch.inf], ids=["not a number", "nothing left"])
def test_a_row_that_has_no_distribution_takes_its_largest_logit(broken):
    logits = torch.full((2, 10), broken)
    logits[0] = 0.0
    token_ids, _ = sample(logits, SamplingRows.gather(draws({}, {}), [0, 1], like=logits))

    assert token_ids[1] == 0
    assert token_ids[0] < 10


def test_a_number_at_the_very_top_draws_the_last_token_that_can_be_drawn():
    logits = torch.tensor([[0.0, 0.0, -torch.inf]])
    top = SamplingRows(
        random_rows=torch.tensor([0]),
        uniforms=torch.tensor([1.0], dtype=torch.float64),
        temperature=torch.ones(1),
    )

    assert sample(logits, top)[0].tolist() == [1]


def test_xtc_counts_a_token_of_exactly_the_threshold_among_the_top():
    exactly = LOGITS.softmax(-1)[0, 1].item()

    assert probabilities(xtc_probability=1.0, xtc_threshold=exactly) == normalized(0, 0.25, 0.125, 0.125)


def test_the_coin_of_xtc_says_nothing_of_the_token_that_is_drawn():
    # At half the probability the coin decides by the same number's first bit, if it were the same number.
    params = {"xtc_probability": 0.5, "xtc_threshold": 0.2}
    own = draws(*[{**params, "seed": seed} for seed in range(4000)])
    gathered = rows(own)
    is_on = gathered.xtc_threshold < 1
    low = gathered.uniforms < 0.5

    assert abs((is_on & low).double().mean() - 0.25) < 0.03
    assert abs((is_on & ~low).double().mean() - 0.25) < 0.03


def test_dry_takes_nothing_over_a_breaker():
    history = (5, 6, 1, 9, 5, 6)
    own = {"dry_multiplier": 1.0, "dry_base": 2.0, "dry_allowed_length": 2}

    assert probabilities(history=history, **own)[1] < 0.25
    assert probabilities(history=history, **own, dry_sequence_breaker_ids=((6,),))[1] == pytest.approx(0.25)
    assert probabilities(history=history, **own, dry_sequence_breaker_ids=((5,),))[1] == pytest.approx(0.25)


def test_a_mask_holds_against_allowed_tokens_and_bans_which_give_way():
    draws = [
        Draw(sampling=SamplingParams(max_tokens=1, seed=0, temperature=0.0, **own), choice=0, is_masked=True)
        for own in ({}, {"allowed_ids": (1,)}, {"bad_words_ids": ((2,),)}, {"logit_bias": ((1, 100.0),)})
    ]
    logits = torch.tensor([[5.0, 6.0, 1.0, 0.0]]).repeat(4, 1)
    bits = np.full((4, 1), 0b0100, dtype=np.int32)

    token_ids, _ = sample(logits, SamplingRows.gather(draws, [0] * 4, like=logits, bits=bits))
    assert token_ids.tolist() == [2] * 4
