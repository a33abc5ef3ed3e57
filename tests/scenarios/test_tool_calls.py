"""Calls through the official client and a live server: each format, each choice, whole and streamed.

What the model would say is scripted, so this is about reading, telling and asking; that a model cannot
say anything else where it is constrained is in test_demo_tool_calls.py.
"""

import json
from collections.abc import Iterator

import openai
import pytest

from server.settings import Settings
from tests.support.bodies import CHAT
from tests.support.call_texts import FORMATS
from tests.support.fake_engine import FakeEngine, Script
from tests.support.live_server import LiveServer, live_server

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}
TOOLS = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": SCHEMA}}
    for name in ("add", "sub")
]
NAMED = {"type": "function", "function": {"name": "add"}}
ALLOWED = {"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [NAMED]}}
CALLS = [("add", '{"a": 1}'), ("sub", '{"a": 2}')]
CHOICES = {"auto": "auto", "required": "required", "named": NAMED, "allowed": ALLOWED}
EVERY_FORMAT = pytest.mark.parametrize("name", FORMATS)


@pytest.fixture(scope="module")
def live() -> Iterator[LiveServer]:
    with live_server(FakeEngine, Settings()) as server:
        yield server


@pytest.fixture
def client(live: LiveServer) -> Iterator[openai.OpenAI]:
    live.engine.requests.clear()
    live.engine.messages.clear()
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def script(live: LiveServer, text: str, size: int = 3) -> None:
    """The model says `text`, in pieces of `size` characters."""
    live.engine.script = Script(pieces=tuple(text[i : i + size] for i in range(0, len(text), size)))


def speak(live: LiveServer, name: str, calls: list[tuple[str, str]], words: str = "Let me see.\n") -> None:
    """The model's template is one of the format, and the model makes `calls` in it."""
    tool_format = FORMATS[name]
    live.engine.template_source = "".join(
        (*tool_format.markers, tool_format.syntax.middle, "<think></think>")
    )
    if name == "mistral":
        live.engine.template_source = "[TOOL_CALLS]"
    script(live, words + tool_format.spell(calls))


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
@pytest.mark.parametrize("choice", CHOICES)
@EVERY_FORMAT
def test_the_client_reads_the_calls(live, client, name, choice, streams):
    calls = CALLS[:1] if choice in ("named", "allowed") else CALLS
    speak(live, name, calls)
    asked = {**CHAT, "tools": TOOLS, "tool_choice": CHOICES[choice]}
    if streams:
        with client.chat.completions.stream(**asked) as stream:
            answer = stream.get_final_completion()
    else:
        answer = client.chat.completions.create(**asked)

    (told,) = answer.choices
    assert [(call.function.name, call.function.arguments) for call in told.message.tool_calls] == calls
    assert len({call.id for call in told.message.tool_calls}) == len(calls)
    assert told.message.content == "Let me see."
    assert told.finish_reason == ("stop" if choice == "named" else "tool_calls")
    assert live.engine.requests[0].sampling.grammar


@EVERY_FORMAT
def test_without_need_there_is_no_grammar(live, client, name):
    speak(live, name, CALLS)
    loose = [{"type": "function", "function": {"name": function}} for function in ("add", "sub")]
    answer = client.chat.completions.create(**CHAT, tools=loose)

    assert len(answer.choices[0].message.tool_calls) == 2
    assert live.engine.requests[0].sampling.grammar == ""


@EVERY_FORMAT
def test_where_nothing_may_be_called_all_is_text(live, client, name):
    speak(live, name, CALLS, words="")
    answer = client.chat.completions.create(**CHAT, tools=TOOLS, tool_choice="none")

    assert answer.choices[0].message.tool_calls is None
    assert answer.choices[0].message.content == FORMATS[name].spell(CALLS)


def test_arguments_arrive_in_fragments(live, client):
    speak(live, "hermes", CALLS)
    chunks = list(client.chat.completions.create(**CHAT, tools=TOOLS, stream=True))
    fragments = [
        call.function.arguments
        for chunk in chunks
        for call in chunk.choices[0].delta.tool_calls or ()
        if call.index == 0
    ]

    assert "".join(fragments) == CALLS[0][1]
    assert len([fragment for fragment in fragments if fragment]) >= 3


def test_every_choice_has_its_own_calls(live, client):
    speak(live, "hermes", CALLS)
    with client.chat.completions.stream(**CHAT, tools=TOOLS, n=3) as stream:
        answer = stream.get_final_completion()

    ids = [call.id for choice in answer.choices for call in choice.message.tool_calls]
    assert len(set(ids)) == 6
    assert all(
        choice.message.tool_calls[0].function.parsed_arguments == {"a": 1} for choice in answer.choices
    )


def test_log_probabilities_cover_the_calls_too(live, client):
    speak(live, "hermes", CALLS)
    answer = client.chat.completions.create(**CHAT, tools=TOOLS, logprobs=True)
    chunks = list(client.chat.completions.create(**CHAT, tools=TOOLS, logprobs=True, stream=True))

    told = [entry for c in chunks if c.choices[0].logprobs for entry in c.choices[0].logprobs.content]
    assert len(told) == len(answer.choices[0].logprobs.content) == answer.usage.completion_tokens


@pytest.mark.parametrize("choice", [None, {"name": "add"}], ids=["auto", "named"])
@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_the_older_form_is_answered_in_the_older_form(live, client, choice, streams):
    speak(live, "json", CALLS[:1], words="")
    chosen = {} if choice is None else {"function_call": choice}
    functions = [tool["function"] for tool in TOOLS]
    told = client.chat.completions.create(**CHAT, functions=functions, stream=streams, **chosen)
    if streams:
        chunks = list(told)
        calls = [c.choices[0].delta.function_call for c in chunks if c.choices[0].delta.function_call]
        read = (calls[0].name, "".join(call.arguments or "" for call in calls))
        reason = chunks[-1].choices[0].finish_reason
    else:
        message, reason = told.choices[0].message, told.choices[0].finish_reason
        assert message.tool_calls is None
        read = (message.function_call.name, message.function_call.arguments)

    assert read == CALLS[0]
    assert reason == ("function_call" if choice is None else "stop")


@pytest.mark.parametrize("reads_tools", [False, True])
def test_a_result_is_sent_back(live, client, reads_tools):
    live.engine.reads_tools = reads_tools
    speak(live, "hermes", CALLS)
    message = client.chat.completions.create(**CHAT, tools=TOOLS).choices[0].message
    results = [{"role": "tool", "tool_call_id": call.id, "content": "3"} for call in message.tool_calls]
    script(live, "It is 3.")
    answer = client.chat.completions.create(
        model=CHAT["model"], messages=[*CHAT["messages"], message.model_dump(), *results], tools=TOOLS
    )
    live.engine.reads_tools = False

    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("It is 3.", "stop")
    told = live.engine.messages[-1]
    if reads_tools:
        assert told[1]["tool_calls"][0]["function"] == {"name": "add", "arguments": {"a": 1}}
        assert [turn["role"] for turn in told] == ["user", "assistant", "tool", "tool"]
    else:
        assert FORMATS["hermes"].spell(CALLS) in told[2]["content"]
        assert told[3] == {"role": "user", "content": "Result of add:\n3\n\nResult of sub:\n3"}


@pytest.mark.parametrize("streams", [False, True], ids=["whole", "streamed"])
def test_reasoning_is_told_beside_calls_and_counted(live, client, streams):
    speak(live, "hermes", CALLS, words="<think>\nHm.\n</think>\n\nSure. ")
    options = {"stream_options": {"include_usage": True}} if streams else {}
    told = client.chat.completions.create(**CHAT, tools=TOOLS, stream=streams, **options)
    if streams:
        chunks = list(told)
        deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
        reasoning = "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas)
        content, usage = "".join(delta.content or "" for delta in deltas), chunks[-1].usage
    else:
        message, usage = told.choices[0].message, told.usage
        reasoning, content = message.reasoning, message.content
        assert message.reasoning_content == reasoning

    assert (reasoning, content) == ("Hm.", "Sure.")
    assert usage.completion_tokens_details.reasoning_tokens == pytest.approx(
        len("<think>\nHm.\n</think>"), abs=3
    )


def test_a_prompt_that_opens_the_reasoning_is_answered_from_inside(live, client):
    live.engine.template_source, live.engine.prompt_end = "<think></think>", "<think>\n"
    script(live, "Hm.</think>Yes.")
    message = client.chat.completions.create(**CHAT).choices[0].message
    live.engine.prompt_end = ""

    assert (message.reasoning, message.content) == ("Hm.", "Yes.")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": [{"type": "function", "function": {"name": "no good"}}]}, "tools[0].function.name"),
        ({"tools": [*TOOLS, TOOLS[0]]}, "tools[2].function.name"),
        (
            {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "rm"}}},
            "tool_choice.function.name",
        ),
        ({"tools": [{"type": "custom", "custom": {"name": "x"}}]}, "tools[0].type"),
        ({"messages": [{"role": "tool", "tool_call_id": "c", "content": "x"}]}, "messages[0].tool_call_id"),
    ],
    ids=["name", "twice", "unknown choice", "custom", "no call"],
)
def test_what_cannot_be_is_the_clients_bad_request_error(client, fields, param):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**CHAT, **fields})

    assert caught.value.param == param


def test_a_server_told_to_know_no_tools_refuses_them():
    with live_server(FakeEngine, Settings(tool_format="none")) as live:
        client = openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0)
        with client, pytest.raises(openai.BadRequestError) as caught:
            client.chat.completions.create(**CHAT, tools=TOOLS)

    assert caught.value.param == "tools"
    assert json.loads(caught.value.response.text)["error"]["code"] == "invalid_value"
