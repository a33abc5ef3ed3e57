"""Constrained answers of the demo model, through a real server and the official client."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from typing import Literal

import hypothesis
import openai
import pytest
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.support.server_process import server_process
from tests.support.some_schemas import complaints, schemas

pytestmark = [pytest.mark.demo_model, pytest.mark.timeout(300)]

MESSAGES = [{"role": "user", "content": "Tell me about a person, as JSON."}]
MAX_TOKENS = 100
STOP = "ab"


class Pet(BaseModel):
    kind: Literal["cat", "dog"]
    age: int


class Person(BaseModel):
    happy: bool
    pets: tuple[Pet, Pet]
    nickname: Literal["Bo", "Al"] | None


@pytest.fixture(scope="module")
def client():
    with server_process("--max-running", "8") as server:
        server.wait_ready()
        with openai.OpenAI(base_url=f"{server.url}/v1", api_key="any", max_retries=0, timeout=120) as client:
            yield client


@pytest.fixture(scope="module")
def ask(client):
    """An answer of the demo model; streamed, if told so, and put together again."""
    model = client.models.list().data[0].id

    def asking(*, streams=False, **fields):
        answer = client.chat.completions.create(
            model=model, messages=MESSAGES, max_tokens=MAX_TOKENS, stream=streams, **fields
        )
        if not streams:
            return [(choice.message.content, choice.finish_reason) for choice in answer.choices]
        texts, reasons = {}, {}
        for chunk in answer:
            for choice in chunk.choices:
                texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
                reasons[choice.index] = choice.finish_reason
        return [(texts[index], reasons[index]) for index in sorted(texts)]

    asking.model = model
    return asking


def format_of(schema):
    return {"type": "json_schema", "json_schema": {"name": "n", "strict": True, "schema": schema}}


def test_the_client_parses_an_answer_into_a_model_of_pydantic(client, ask):
    answer = client.chat.completions.parse(
        model=ask.model, messages=MESSAGES, response_format=Person, seed=1, max_tokens=MAX_TOKENS
    )

    assert isinstance(answer.choices[0].message.parsed, Person)
    assert answer.choices[0].finish_reason == "stop"


def test_the_client_streams_ever_more_of_an_answer_and_parses_it(client, ask):
    with client.chat.completions.stream(
        model=ask.model, messages=MESSAGES, response_format=Person, seed=2, max_tokens=MAX_TOKENS
    ) as stream:
        partial = [event.parsed for event in stream if event.type == "content.delta"]
        answer = stream.get_final_completion()

    assert isinstance(answer.choices[0].message.parsed, Person)
    seen = [value for value in partial if isinstance(value, dict)]
    assert all(set(before) <= set(after) for before, after in itertools.pairwise(seen))
    assert "happy" in seen[-1]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"guided_regex": "[0-9]{3}"}, str.isdigit),
        ({"guided_choice": ["red", "green"]}, {"red", "green"}.__contains__),
        ({"guided_grammar": 'root ::= "x" | "y" root'}, lambda text: text.strip("y") == "x"),
        ({"structured_outputs": {"json": {"type": "boolean"}}}, {"true", "false"}.__contains__),
        ({"response_format": {"type": "json_object"}, "max_tokens": 1}, "{".__eq__),
    ],
    ids=["regex", "choice", "grammar", "json", "cut"],
)
def test_plain_completions_follow_constraints_too(client, ask, fields, expected):
    body = {"max_tokens": 50, **fields}
    (choice,) = client.completions.create(
        model=ask.model,
        prompt="Say",
        seed=3,
        temperature=1,
        max_tokens=body.pop("max_tokens"),
        extra_body=body,
    ).choices

    assert expected(choice.text)
    assert choice.finish_reason == ("length" if "response_format" in fields else "stop")


@pytest.mark.parametrize(
    ("fields", "param", "words"),
    [
        (
            {"response_format": format_of({"properties": {"a": {"not": {}}}})},
            "response_format",
            ["not", "#/properties/a"],
        ),
        ({"extra_body": {"guided_regex": "(?=a)"}}, "guided_regex", ["look-around"]),
        ({"extra_body": {"guided_grammar": "start: x"}}, "guided_grammar", ['unknown name: "x"']),
    ],
    ids=["schema", "regex", "grammar"],
)
def test_what_cannot_be_followed_is_refused_with_field_reason_and_path(ask, fields, param, words):
    with pytest.raises(openai.BadRequestError) as caught:
        ask(**fields)

    assert caught.value.body["param"] == param
    assert all(word in caught.value.body["message"] for word in words)


def judge(ask, drawn, seed):
    """Ask for an answer of each schema at once, in every way there is, and judge those that stopped."""
    ways = [
        {},
        {"n": 2},
        {"streams": True},
        {"stop": STOP, "extra_body": {"include_stop_str_in_output": True}},
    ]
    with ThreadPoolExecutor(len(ways)) as pool:
        asked = [
            pool.submit(ask, response_format=format_of(schema), seed=seed, temperature=1.5, **way)
            for schema, way in zip(drawn, ways, strict=True)
        ]
    for schema, way, answers in zip(drawn, ways, asked, strict=True):
        for text, reason in answers.result():
            was_cut = reason == "length" or ("stop" in way and text.endswith(STOP))
            assert was_cut or list(complaints(text, schema)) == []


DRAWN = st.lists(schemas(), min_size=4, max_size=4)
SEEDS = st.integers(0, 1 << 32)
QUIET = {
    "deadline": None,
    "database": None,
    "derandomize": True,
    "suppress_health_check": list(hypothesis.HealthCheck),
}


@hypothesis.settings(max_examples=2, phases=[hypothesis.Phase.generate], **QUIET)
@hypothesis.given(DRAWN, SEEDS)
def test_every_answer_that_stopped_follows_its_schema(ask, drawn, seed):
    judge(ask, drawn, seed)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@hypothesis.settings(max_examples=100, **QUIET)
@hypothesis.given(DRAWN, SEEDS)
def test_hundreds_of_answers_that_stopped_follow_their_schemas(ask, drawn, seed):
    judge(ask, drawn, seed)


def test_a_constrained_answer_that_nobody_reads_leaves_nothing_behind(client, ask):
    endless = {"type": "array", "items": {"type": "integer"}, "minItems": 1000}
    stream = client.chat.completions.create(
        model=ask.model, messages=MESSAGES, response_format=format_of(endless), stream=True, max_tokens=2000
    )
    next(iter(stream))
    stream.close()

    ((text, reason),) = ask(response_format=format_of({"const": [1]}))
    assert (json.loads(text), reason) == ([1], "stop")
