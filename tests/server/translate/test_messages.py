import pytest

from engine import RequestError
from server.reasoning import THINK
from server.schemas.chat import ChatCompletionRequest
from server.schemas.tools import FunctionDefinition
from server.tools.formats import HERMES, JSON, MISTRAL
from server.translate.messages import (
    TurnStyle,
    in_front,
    preamble,
    short_id,
    to_chat_options,
    to_messages,
    to_template_tools,
)

USER = {"role": "user", "content": "Hi"}
CALLS = [
    {"id": f"call_{i}", "type": "function", "function": {"name": "add", "arguments": f'{{"a": {i}}}'}}
    for i in (1, 2)
]
ASKED = {"role": "assistant", "content": None, "tool_calls": CALLS}
RESULTS = [{"role": "tool", "tool_call_id": call["id"], "content": call["id"][-1]} for call in CALLS]
ADD = FunctionDefinition(
    name="add", description="Adds.", parameters={"type": "object", "properties": {"a": {"type": "number"}}}
)


def told(messages, style: TurnStyle = TurnStyle()) -> list[dict]:
    return to_messages(
        ChatCompletionRequest.model_validate({"model": "m", "messages": messages}).messages, style
    )


def test_a_developer_speaks_as_system_to_the_template():
    assert told([{"role": "developer", "content": "x"}]) == [{"role": "system", "content": "x"}]


def test_calls_reach_the_template_with_their_arguments_as_objects():
    _, asked, first, _ = told([USER, ASKED, *RESULTS])

    assert asked["tool_calls"][1] == {
        "id": "call_2",
        "type": "function",
        "function": {"name": "add", "arguments": {"a": 2}},
    }
    assert (asked["content"], first) == ("", {"role": "tool", "content": "1", "tool_call_id": "call_1"})


def test_arguments_that_are_no_object_stay_text():
    call = {**CALLS[0], "function": {"name": "add", "arguments": '{"a": '}}
    asked = told([{**ASKED, "tool_calls": [call]}, RESULTS[0]])[0]

    assert asked["tool_calls"][0]["function"]["arguments"] == '{"a": '


def test_the_older_form_is_told_as_a_call_and_its_result():
    legacy = [
        {"role": "assistant", "content": None, "function_call": {"name": "add", "arguments": "{}"}},
        {"role": "function", "name": "add", "content": "3"},
    ]
    asked, result = told(legacy)

    assert (result["role"], result["tool_call_id"]) == ("tool", asked["tool_calls"][0]["id"])


def test_mistrals_templates_are_given_short_ids_that_match():
    asked, first, _ = told([ASKED, *RESULTS], TurnStyle(tool_format=MISTRAL))

    assert len(asked["tool_calls"][0]["id"]) == 9
    assert asked["tool_calls"][0]["id"] == first["tool_call_id"] == short_id("call_1")
    assert short_id("abcdefgh9") == "abcdefgh9"


def test_where_the_template_knows_no_calls_they_are_told_in_words():
    messages = told([USER, ASKED, *RESULTS, USER], TurnStyle(in_words=True, tool_format=JSON))

    assert messages == [
        USER,
        {
            "role": "assistant",
            "content": '{"name": "add", "arguments": {"a": 1}}\n{"name": "add", "arguments": {"a": 2}}',
        },
        {"role": "user", "content": "Result of add:\n1\n\nResult of add:\n2"},
        USER,
    ]


THOUGHT = {"role": "assistant", "content": "x", "reasoning_content": "Hm."}


@pytest.mark.parametrize(
    ("style", "message"),
    [
        (TurnStyle(), {"role": "assistant", "content": "x"}),
        (
            TurnStyle(past_reasoning=THINK),
            {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nx"},
        ),
        (
            TurnStyle(past_reasoning=THINK, reads_reasoning=True),
            {"role": "assistant", "content": "x", "reasoning_content": "Hm."},
        ),
    ],
    ids=["left out", "as text", "as the template reads it"],
)
def test_past_reasoning_is_told_only_if_asked_for(style, message):
    assert told([THOUGHT], style) == [message]


def test_a_preamble_shows_the_functions_and_how_to_call_them():
    text = preamble([ADD], HERMES, must_call=False)

    assert '{"name": "add", "description": "Adds.", "parameters": {"type": "object"' in text
    assert HERMES.spell([("add", '{"a": "..."}')]) in text
    assert "plain text" in text
    assert "plain text" not in preamble([ADD], HERMES, must_call=True)


def test_templates_read_functions_as_openai_writes_them():
    (tool,) = to_template_tools([FunctionDefinition(name="f")])

    assert tool == {
        "type": "function",
        "function": {"name": "f", "parameters": {"type": "object", "properties": {}}},
    }


@pytest.mark.parametrize(
    ("messages", "role", "contents"),
    [
        ([USER], "system", ["P", "Hi"]),
        ([{"role": "system", "content": "S"}, USER], "system", ["S\n\nP", "Hi"]),
        ([USER], "user", ["P\n\nHi"]),
        ([{"role": "assistant", "content": "A"}], "user", ["P", "A"]),
    ],
)
def test_text_is_put_in_front(messages, role, contents):
    assert [message["content"] for message in in_front(messages, "P", role)] == contents


def test_an_unread_variable_is_refused():
    body = ChatCompletionRequest.model_validate(
        {"model": "m", "messages": [USER], "chat_template_kwargs": {"mood": 1}}
    )
    with pytest.raises(RequestError):
        to_chat_options(body, frozenset())

    assert to_chat_options(body, None, tools=[{"x": 1}]).tools == [{"x": 1}]
