"""The demo model, which was never trained on tools, through the real server: what it calls is valid.

At temperature 1.5 a model this small writes hardly a word of sense, so whatever is valid here is valid
by the grammar.
"""

import json
from collections.abc import Iterator

import jsonschema
import openai
import pytest

from tests.support.server_process import server_process

pytestmark = [pytest.mark.demo_model, pytest.mark.timeout(300)]

MODEL = "demo"
TEXT = {"type": "string", "maxLength": 12}
SCHEMAS = {
    "get_weather": {
        "type": "object",
        "properties": {
            "city": TEXT,
            "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
            "days": {"type": "integer", "minimum": 1, "maximum": 7},
        },
        "required": ["city", "unit", "days"],
        "additionalProperties": False,
    },
    "add": {
        "type": "object",
        "properties": {"a": {"type": "number"}, "b": {"type": "number"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    },
    "book": {
        "type": "object",
        "properties": {
            "guests": {
                "type": "array",
                "items": {"$ref": "#/$defs/guest"},
                "minItems": 1,
                "maxItems": 2,
            },
            "note": {"anyOf": [TEXT, {"type": "null"}]},
            "code": {"type": "string", "pattern": "^[A-Z]{2}[0-9]{3}$"},
        },
        "required": ["guests", "note", "code"],
        "additionalProperties": False,
        "$defs": {
            "guest": {
                "type": "object",
                "properties": {"name": TEXT, "is_child": {"type": "boolean"}},
                "required": ["name", "is_child"],
                "additionalProperties": False,
            }
        },
    },
    "stop_all": {"type": "object", "properties": {}, "additionalProperties": False},
}
TOOLS = [
    {"type": "function", "function": {"name": name, "strict": True, "parameters": schema}}
    for name, schema in SCHEMAS.items()
]
QUESTION = [{"role": "user", "content": "What is the weather in Paris, and can you book a table for two?"}]


@pytest.fixture(scope="module", params=["auto", pytest.param("hermes", marks=pytest.mark.slow)])
def client(request, demo_model_path) -> Iterator[openai.OpenAI]:
    options = ["--served-model-name", MODEL, "--tool-format", request.param]
    with server_process(str(demo_model_path), *options) as server:
        server.wait_ready()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0) as client:
            yield client


def asked(**fields: object) -> dict:
    hot = {"temperature": 1.5, "max_tokens": 120, "seed": 3}
    return {"model": MODEL, "messages": QUESTION, "tools": TOOLS, **hot, **fields}


def check(choice) -> int:
    """How many calls the choice has; each that was not cut is valid."""
    calls = choice.message.tool_calls or []
    ended = calls if choice.finish_reason != "length" else calls[:-1]
    for call in ended:
        jsonschema.validate(json.loads(call.function.arguments), SCHEMAS[call.function.name])
    return len(ended)


@pytest.mark.parametrize("seed", [3, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(4, 16))])
def test_what_must_be_called_is_valid(client, seed):
    answer = client.chat.completions.create(**asked(n=4, seed=seed), tool_choice="required")

    assert sum(map(check, answer.choices)) >= 4
    assert {choice.finish_reason for choice in answer.choices} <= {"tool_calls", "length"}
    assert all(
        choice.message.content is None for choice in answer.choices if choice.finish_reason == "tool_calls"
    )


@pytest.mark.parametrize("name", SCHEMAS)
def test_a_named_function_is_called_once(client, name):
    choice = {"type": "function", "function": {"name": name}}
    answer = client.chat.completions.create(**asked(n=2), tool_choice=choice)

    for told in answer.choices:
        check(told)
        assert [call.function.name for call in told.message.tool_calls] == [name]
        assert told.finish_reason in ("stop", "length")


def test_the_clients_stream_parses_the_arguments(client):
    fields = asked(temperature=0, tool_choice="required", parallel_tool_calls=False)
    with client.chat.completions.stream(**fields) as stream:
        (told,) = stream.get_final_completion().choices

    whole = client.chat.completions.create(**fields).choices[0]
    assert check(told) == check(whole) >= 1
    assert [call.function.arguments for call in told.message.tool_calls] == [
        call.function.arguments for call in whole.message.tool_calls
    ]
    assert told.message.tool_calls[0].function.parsed_arguments == json.loads(
        whole.message.tool_calls[0].function.arguments
    )


@pytest.mark.parametrize("temperature", [0.0, *(pytest.param(t, marks=pytest.mark.slow) for t in (0.7, 1.5))])
def test_whatever_is_called_freely_and_strictly_is_valid(client, temperature):
    """Two earlier turns show the model how to call, so that it does without being forced."""
    turns = [
        turn
        for name, arguments in (("add", '{"a": 1, "b": 2}'), ("stop_all", "{}"))
        for turn in (
            {"role": "user", "content": f"Please {name}."},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": name, "type": "function", "function": {"name": name, "arguments": arguments}}
                ],
            },
            {"role": "tool", "tool_call_id": name, "content": "done"},
            {"role": "assistant", "content": "It is done."},
        )
    ]
    messages = [*turns, {"role": "user", "content": "Please add."}]
    answer = client.chat.completions.create(**asked(n=2, temperature=temperature, messages=messages))
    num_calls = sum(map(check, answer.choices))

    assert num_calls or temperature > 1


def test_one_call_may_be_the_most(client):
    answer = client.chat.completions.create(**asked(n=3), tool_choice="required", parallel_tool_calls=False)

    assert [len(choice.message.tool_calls) for choice in answer.choices] == [1] * 3


def test_a_schema_that_cannot_be_enforced_is_refused_where_it_is_strict(client):
    schema = {
        "type": "object",
        "properties": {"a": {"type": "string", "pattern": "(?=x)"}},
        "required": ["a"],
    }
    tools = [{"type": "function", "function": {"name": "f", "strict": True, "parameters": schema}}]
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**{**asked(), "tools": tools})

    assert caught.value.param == "tools"
