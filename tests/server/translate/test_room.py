import pytest

from engine import ContextLengthError
from server.translate.room import Room


def room(max_tokens: int | None = None, prompt_field: str = "prompt") -> Room:
    return Room(max_context=10, prompt_field=prompt_field, max_tokens=max_tokens, limit_field="max_tokens")


@pytest.mark.parametrize(
    ("max_tokens", "num_prompt", "left"), [(None, 4, 6), (None, 9, 1), (6, 4, 6), (1, 9, 1), (0, 10, 0)]
)
def test_what_fits_leaves_room(max_tokens, num_prompt, left):
    assert room(max_tokens).left_behind(num_prompt) == left


@pytest.mark.parametrize(
    ("max_tokens", "num_prompt", "param"),
    [(None, 10, "prompt"), (1, 10, "prompt"), (0, 11, "prompt"), (7, 4, "max_tokens"), (2, 9, "max_tokens")],
)
def test_what_does_not_fit_blames_the_field_that_has_to_change(max_tokens, num_prompt, param):
    with pytest.raises(ContextLengthError) as caught:
        room(max_tokens).left_behind(num_prompt)

    assert caught.value.param == param


def test_a_long_prompt_is_told_its_numbers_and_no_others():
    with pytest.raises(ContextLengthError) as caught:
        room(prompt_field="messages").left_behind(12)

    assert caught.value.message == (
        "This model's maximum context length is 10 tokens, but the messages have 12, which leaves none for the "
        "completion. Shorten the messages."
    )


def test_a_large_limit_is_told_beside_the_prompt():
    with pytest.raises(ContextLengthError) as caught:
        room(9).left_behind(3)

    assert caught.value.message == (
        "This model's maximum context length is 10 tokens, but 12 were requested: 3 in the prompt and 9 for the "
        "completion. Shorten the prompt or lower max_tokens."
    )


def test_the_longest_prompt_depends_on_whether_anything_follows():
    assert (room().max_prompt_tokens, room(3).max_prompt_tokens, room(0).max_prompt_tokens) == (9, 9, 10)
