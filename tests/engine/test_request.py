import pickle

import pytest

from engine.errors import RequestError
from engine.request import (
    MAX_CHOICES,
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
    ],
    ids=["no prompt", "no choices", "too many choices"],
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
