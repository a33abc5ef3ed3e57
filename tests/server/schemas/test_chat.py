from typing import get_args

import pytest
from openai.types.shared_params import ReasoningEffort
from pydantic import ValidationError

from server.schemas.chat import ChatCompletionRequest, ChatMessage
from server.schemas.common import unknown_fields

USER = {"role": "user", "content": "Hi"}


def read(**fields: object) -> ChatCompletionRequest:
    return ChatCompletionRequest.model_validate({"model": "m", "messages": [USER], **fields})


def refused(**fields: object) -> dict:
    with pytest.raises(ValidationError) as caught:
        read(**fields)
    return caught.value.errors()[0]


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant"])
def test_each_role_may_speak(role):
    assert read(messages=[{"role": role, "content": "x"}]).messages[0].role == role


@pytest.mark.parametrize("role", ["functions", "", None, 5])
def test_no_other_role_may_speak(role):
    assert refused(messages=[{"role": role, "content": "x"}])["loc"] == ("messages", 0, "role")


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]

    assert ChatMessage(role="user", content=parts).text == "ab"


@pytest.mark.parametrize("kind", ["image_url", "input_audio", "file"])
def test_other_parts_than_text_are_not_supported_yet(kind):
    complaint = refused(messages=[{"role": "user", "content": [{"type": kind, kind: {}}]}])

    assert complaint["type"] == "unsupported_parameter"
    assert kind in complaint["msg"]


@pytest.mark.parametrize("content", [None, 5, [], [5], ["x"], {"type": "text"}, "\ud800"], ids=ascii)
def test_content_that_is_no_text_is_refused(content):
    assert refused(messages=[{"role": "user", "content": content}])["loc"][:2] == ("messages", 0)


def test_an_answer_of_ours_may_be_sent_back():
    sent_back = {
        "role": "assistant",
        "content": "x",
        "refusal": None,
        "tool_calls": None,
        "audio": None,
        "annotations": [],
    }

    assert read(messages=[USER, sent_back, USER]).messages[1].text == "x"


def test_a_refusal_stands_for_content():
    assert read(messages=[{"role": "assistant", "content": None, "refusal": "no"}]).messages[0].text == "no"


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
ASKED = {"role": "assistant", "content": None, "tool_calls": [CALL]}
TOLD = {"role": "tool", "tool_call_id": "c1", "content": "x"}


def test_a_call_and_its_result_are_turns():
    messages = read(messages=[USER, ASKED, TOLD, USER]).messages

    assert messages[1].tool_calls[0].function.name == messages[1].tool_calls[0].function.name == "f"
    assert (messages[1].text, messages[2].tool_call_id) == ("", "c1")


@pytest.mark.parametrize(
    ("messages", "where"),
    [
        ([USER, TOLD], (1, "tool_call_id")),
        ([ASKED, {**TOLD, "tool_call_id": "c2"}], (1, "tool_call_id")),
        ([ASKED, TOLD, TOLD], (2, "tool_call_id")),
        ([ASKED, USER], (0, "tool_calls")),
        ([USER, ASKED], (1, "tool_calls")),
        ([{**ASKED, "tool_calls": [CALL, CALL]}, TOLD], (0, "tool_calls")),
    ],
    ids=[
        "no call",
        "another call",
        "answered twice",
        "not answered",
        "not answered at the end",
        "one id twice",
    ],
)
def test_every_call_is_answered_once_and_nothing_else(messages, where):
    assert refused(messages=messages)["ctx"]["param"] == where


@pytest.mark.parametrize(
    ("message", "param"),
    [
        ({"role": "user", "content": "x", "tool_calls": [CALL]}, "tool_calls"),
        ({"role": "user", "content": "x", "function_call": {"name": "f", "arguments": ""}}, "function_call"),
        ({**ASKED, "function_call": {"name": "f", "arguments": ""}}, "function_call"),
        ({"role": "tool", "content": "x"}, "tool_call_id"),
        ({"role": "function", "content": "x"}, "name"),
    ],
)
def test_calls_belong_to_their_roles(message, param):
    assert refused(messages=[message])["ctx"]["param"] == param


def test_a_custom_call_is_not_supported():
    assert refused(messages=[{**ASKED, "tool_calls": [{"id": "1", "type": "custom"}]}])["type"] == (
        "unsupported_parameter"
    )


@pytest.mark.parametrize(
    "messages",
    [[], None, "Hi", [[]], ["Hi"], [USER] * 4097],
    ids=["empty", "null", "text", "list", "strings", "many"],
)
def test_messages_must_be_a_list_of_messages(messages):
    assert refused(messages=messages)["loc"][0] == "messages"


def test_a_name_is_kept():
    assert read(messages=[{**USER, "name": "ann"}]).messages[0].name == "ann"


def test_an_unknown_message_field_is_found():
    assert list(unknown_fields(read(messages=[{**USER, "mood": "good"}]))) == [("messages", 0, "mood")]


def test_both_token_limits_at_once_are_refused():
    assert refused(max_tokens=1, max_completion_tokens=1)["ctx"]["param"] == "max_tokens"


def test_alternatives_need_log_probabilities():
    assert refused(top_logprobs=2)["ctx"]["param"] == "top_logprobs"


def test_a_prompt_has_one_end():
    complaint = refused(continue_final_message=True, add_generation_prompt=True)

    assert complaint["ctx"]["param"] == "continue_final_message"


def test_an_answer_has_at_least_one_token():
    assert refused(max_tokens=0)["loc"] == ("max_tokens",)


@pytest.mark.parametrize(
    "metadata", [5, {"a": 5}, {str(i): "" for i in range(17)}], ids=["number", "value", "many"]
)
def test_metadata_that_is_none_is_refused(metadata):
    assert refused(metadata=metadata)["loc"][0] == "metadata"


@pytest.mark.parametrize("effort", [*get_args(get_args(ReasoningEffort)[0]), None])
def test_every_effort_of_the_official_client_is_taken(effort):
    assert read(reasoning_effort=effort).reasoning_effort == effort


@pytest.mark.parametrize("param", ["refusal", "tool_call_id"])
@pytest.mark.parametrize("role", ["user", "system", "developer"])
def test_what_only_others_say_is_refused(role, param):
    complaint = refused(messages=[{"role": role, "content": "x", param: "y"}])

    assert complaint["loc"] == ("messages", 0)
    assert complaint["ctx"]["param"] == param


@pytest.mark.parametrize(
    "value", ["\ud800", ["a", "\ud800"], {"a": {"\ud800": 1}}], ids=["text", "list", "key"]
)
def test_variables_that_are_no_text_are_refused(value):
    assert refused(chat_template_kwargs={"x": value})["loc"] == ("chat_template_kwargs",)
    assert refused(chat_template_kwargs={"\ud800": 1})["loc"] == ("chat_template_kwargs",)
