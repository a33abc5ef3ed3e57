import pytest
from pydantic import ValidationError

from server.schemas.completions import CompletionRequest


def read(**fields: object) -> CompletionRequest:
    return CompletionRequest.model_validate({"model": "m", "prompt": "Hi", **fields})


def refused(**fields: object) -> dict:
    with pytest.raises(ValidationError) as caught:
        read(**fields)
    return caught.value.errors()[0]


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("a", ["a"]), (["a", "b"], ["a", "b"]), ([1, 2], [[1, 2]]), ([[1], [2, 3]], [[1], [2, 3]])],
    ids=["text", "texts", "ids", "id lists"],
)
def test_a_prompt_has_four_forms(prompt, prompts):
    assert read(prompt=prompt).prompts == prompts


@pytest.mark.parametrize(
    "prompt",
    [
        None,
        5,
        {},
        [],
        [True],
        [None],
        [1.5],
        ["a", 1],
        [1, "a"],
        [[1], "a"],
        [[]],
        [[1], []],
        [-1],
        [2**40],
        ["a"] * 129,
        ["\ud800"],
    ],
    ids=ascii,
)
def test_no_other_form_is_a_prompt(prompt):
    assert refused(prompt=prompt)["loc"][0] == "prompt"


def test_a_prompt_is_required():
    with pytest.raises(ValidationError) as caught:
        CompletionRequest.model_validate({"model": "m"})

    assert caught.value.errors()[0]["loc"] == ("prompt",)


@pytest.mark.parametrize(
    ("name", "value"), [("best_of", 2), ("echo", True), ("suffix", "x"), ("logprobs", 1), ("logprobs", 5)]
)
def test_what_is_valid_but_unbuilt_is_refused_by_name(name, value):
    complaint = refused(**{name: value})

    assert complaint["type"] == "unsupported_parameter"
    assert complaint["ctx"]["param"] == name


@pytest.mark.parametrize(
    ("name", "value"), [("best_of", 1), ("echo", False), ("suffix", None), ("logprobs", None)]
)
def test_a_value_that_asks_for_nothing_passes(name, value):
    read(**{name: value})


@pytest.mark.parametrize("value", [True, -1, 6, "0"])
def test_logprobs_are_a_small_number(value):
    assert refused(logprobs=value)["loc"] == ("logprobs",)


def test_chat_parameters_are_unknown_here():
    assert refused(messages=[])["type"] == "extra_forbidden"
