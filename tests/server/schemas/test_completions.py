import pytest
from pydantic import ValidationError

from server.schemas.common import unknown_fields
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


@pytest.mark.parametrize("value", [True, -1, "0"])
def test_logprobs_are_a_number(value):
    assert refused(logprobs=value)["loc"] == ("logprobs",)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 0, "logprobs": 1}, "max_tokens"),
        ({"suffix": "x", "echo": True}, "suffix"),
        ({"min_tokens": 5, "max_tokens": 4}, "min_tokens"),
    ],
    ids=str,
)
def test_what_contradicts_itself_is_refused_by_name(fields, param):
    assert refused(**fields)["ctx"]["param"] == param


@pytest.mark.parametrize("fields", [{"echo": True}, {"prompt_logprobs": 0}], ids=str)
def test_no_token_needs_to_be_generated_where_the_prompt_is_the_answer(fields):
    assert read(max_tokens=0, **fields).scores_prompt


def test_chat_parameters_are_unknown_here():
    assert list(unknown_fields(read(messages=[]))) == [("messages",)]


@pytest.mark.parametrize(
    "prompt",
    [[-5] * 100_000, [[1, -5]] * 100, [[-5] * 1000] * 100, ["x", 3] * 50],
    ids=["ids", "lists", "long lists", "mixed"],
)
def test_a_long_list_is_refused_at_its_first_fault(prompt):
    with pytest.raises(ValidationError) as refused:
        CompletionRequest.model_validate({"model": "m", "prompt": prompt})

    assert refused.value.error_count() <= 2
