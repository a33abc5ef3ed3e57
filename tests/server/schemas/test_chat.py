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


@pytest.mark.parametrize("role", ["system", "developer", "user", "assistant", "tool"])
def test_each_role_may_speak(role):
    assert read(messages=[{"role": role, "content": "x"}]).messages[0].role == role


@pytest.mark.parametrize("role", ["function", "", None, 5])
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


def test_tool_calls_are_not_supported_yet():
    complaint = refused(messages=[{"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]}])

    assert complaint["ctx"]["param"] == "tool_calls"


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


@pytest.mark.parametrize("effort", ["none", "minimal", "low", "medium", "high", "xhigh", "max", None])
def test_every_effort_of_the_official_client_is_taken(effort):
    assert effort in (None, *get_args(get_args(ReasoningEffort)[0]))
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
