import pickle

import pytest

from engine.errors import RequestError
from engine.request import (
    MAX_BAD_WORDS,
    MAX_BIASES,
    MAX_CHOICES,
    MAX_PRIORITY,
    MAX_STOP_IDS,
    MAX_STOP_STRINGS,
    SEED_BITS,
    FinishReason,
    Request,
    SamplingParams,
)


def sampling(**fields: object) -> SamplingParams:
    return SamplingParams(**{"max_tokens": 1, "seed": 0} | fields)


def request(**fields: object) -> Request:
    return Request(**{"request_id": "a", "prompt_ids": (1, 2, 3), "sampling": sampling()} | fields)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"max_tokens": 0}, "max_tokens"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << SEED_BITS}, "seed"),
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.01}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_k": -1}, "top_k"),
        ({"stop": ("a", "")}, "stop"),
        ({"stop": ("a",) * (MAX_STOP_STRINGS + 1)}, "stop"),
        ({"max_tokens": -1, "prompt_logprobs": 0}, "max_tokens"),
        ({"min_p": -0.1}, "min_p"),
        ({"min_p": 1.1}, "min_p"),
        ({"typical_p": 0.0}, "typical_p"),
        ({"typical_p": 1.1}, "typical_p"),
        ({"presence_penalty": 2.1}, "presence_penalty"),
        ({"frequency_penalty": -2.1}, "frequency_penalty"),
        ({"frequency_penalty": float("nan")}, "frequency_penalty"),
        ({"repetition_penalty": 0.0}, "repetition_penalty"),
        ({"repetition_penalty": float("inf")}, "repetition_penalty"),
        ({"dry_multiplier": -1.0}, "dry_multiplier"),
        ({"dry_base": 0.5}, "dry_base"),
        ({"dry_base": 1e9}, "dry_base"),
        ({"dry_allowed_length": -1}, "dry_allowed_length"),
        ({"dry_range": -1}, "dry_penalty_last_n"),
        ({"dry_sequence_breaker_ids": ((),)}, "dry_sequence_breakers"),
        ({"xtc_probability": 1.1}, "xtc_probability"),
        ({"xtc_threshold": -0.1}, "xtc_threshold"),
        ({"logit_bias": ((3, 101.0),)}, "logit_bias"),
        ({"logit_bias": ((3, float("nan")),)}, "logit_bias"),
        ({"logit_bias": ((3, 1.0), (3, 2.0))}, "logit_bias"),
        ({"logit_bias": tuple((token_id, 1.0) for token_id in range(MAX_BIASES + 1))}, "logit_bias"),
        ({"bad_words_ids": ((1,), ())}, "bad_words"),
        ({"bad_words_ids": ((1,),) * (MAX_BAD_WORDS + 1)}, "bad_words"),
        ({"stop_token_ids": (1,) * (MAX_STOP_IDS + 1)}, "stop_token_ids"),
        ({"min_tokens": -1}, "min_tokens"),
        ({"min_tokens": 2}, "min_tokens"),
        ({"num_top_logprobs": -1, "logprobs": True}, "top_logprobs"),
        ({"num_top_logprobs": 1}, "top_logprobs"),
        ({"prompt_logprobs": -1}, "prompt_logprobs"),
    ],
    ids=str,
)
def test_sampling_out_of_range_is_the_callers_mistake(fields: dict[str, object], param: str):
    with pytest.raises(RequestError) as caught:
        sampling(**fields)

    assert caught.value.param == param


@pytest.mark.parametrize(
    "fields",
    [
        {"temperature": 0.0},
        {"temperature": 2.0},
        {"top_p": 1.0},
        {"top_k": 0},
        {"seed": (1 << SEED_BITS) - 1},
        {"stop": ("a",) * MAX_STOP_STRINGS},
        {"max_tokens": 0, "prompt_logprobs": 0},
        {"min_p": 1.0, "typical_p": 1.0, "xtc_probability": 1.0, "xtc_threshold": 0.0},
        {"presence_penalty": -2.0, "frequency_penalty": 2.0, "repetition_penalty": 100.0},
        {"dry_multiplier": 0.8, "dry_base": 1.0, "dry_allowed_length": 0, "dry_range": 0},
        {"logit_bias": ((1, -100.0), (2, 100.0)), "min_tokens": 1},
    ],
    ids=str,
)
def test_sampling_at_its_limits_is_allowed(fields: dict[str, object]):
    made = sampling(**fields)

    assert {name: getattr(made, name) for name in fields} == fields


@pytest.mark.parametrize(("temperature", "is_greedy"), [(0.0, True), (0.01, False)])
def test_only_temperature_zero_is_greedy(temperature: float, is_greedy: bool):
    assert sampling(temperature=temperature).is_greedy is is_greedy


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_ids": ()}, "prompt"),
        ({"num_choices": 0}, "n"),
        ({"num_choices": MAX_CHOICES + 1}, "n"),
        ({"priority": MAX_PRIORITY + 1}, "priority"),
        ({"timeout_s": 0.0}, "timeout"),
        ({"timeout_s": float("inf")}, "timeout"),
    ],
    ids=["no prompt", "no choices", "too many choices", "priority", "no time", "endless time"],
)
def test_a_request_that_makes_no_sense_is_the_callers_mistake(fields: dict[str, object], param: str):
    with pytest.raises(RequestError) as caught:
        request(**fields)

    assert caught.value.param == param


def test_a_request_may_come_to_occupy_prompt_and_output():
    assert request(sampling=sampling(max_tokens=5)).max_total_tokens == 8


def test_a_prompt_does_not_show_in_logs():
    assert "prompt_ids" not in repr(request())


def test_a_request_crosses_the_border_and_compares_equal():
    made = request(num_choices=2, sampling=sampling(stop=("a", "b"), logprobs=True, temperature=0.5))

    assert pickle.loads(pickle.dumps(made)) == made


def test_finish_reasons_are_the_words_of_the_wire():
    assert [str(reason) for reason in FinishReason] == ["stop", "length"]


@pytest.mark.parametrize(
    ("fields", "looks_back"),
    [
        ({}, False),
        ({"bad_words_ids": ((5,),), "logit_bias": ((1, 2.0),), "min_tokens": 1}, False),
        ({"bad_words_ids": ((5, 6),)}, True),
        ({"presence_penalty": 0.1}, True),
        ({"frequency_penalty": 0.1}, True),
        ({"repetition_penalty": 1.1}, True),
        ({"dry_multiplier": 0.1}, True),
    ],
    ids=str,
)
def test_only_what_depends_on_earlier_tokens_looks_back(fields: dict[str, object], looks_back: bool):
    assert sampling(**fields).looks_back is looks_back


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"prompt_ids": (1, 10)}, "prompt"),
        ({"prompt_ids": (-1,)}, "prompt"),
        ({"sampling": sampling(logit_bias=((10, 1.0),))}, "logit_bias"),
        ({"sampling": sampling(allowed_ids=(1, 10))}, "allowed_token_ids"),
        ({"sampling": sampling(bad_words_ids=((1, 10),))}, "bad_words"),
        ({"sampling": sampling(stop_token_ids=(-1,))}, "stop_token_ids"),
        ({"sampling": sampling(dry_sequence_breaker_ids=((10,),))}, "dry_sequence_breakers"),
    ],
    ids=str,
)
def test_a_token_id_outside_the_vocabulary_is_refused_by_the_name_of_its_parameter(
    fields: dict[str, object], param: str
):
    with pytest.raises(RequestError) as caught:
        request(**fields).refuse_foreign_ids(10)

    assert caught.value.param == param


def test_token_ids_of_the_vocabulary_are_let_through():
    request(sampling=sampling(allowed_ids=(0, 9), logit_bias=((9, 1.0),))).refuse_foreign_ids(10)


@pytest.mark.parametrize("temperature", [0.0, 5e-324, 1e-50, 9.9e-6])
def test_a_temperature_next_to_nothing_is_greedy(temperature):
    assert SamplingParams(max_tokens=1, seed=0, temperature=temperature).is_greedy


def test_a_low_temperature_is_not_greedy():
    assert not SamplingParams(max_tokens=1, seed=0, temperature=1e-5).is_greedy
