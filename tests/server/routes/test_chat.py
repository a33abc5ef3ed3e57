import json

import pytest

from engine.text.tokenizer_threads import INLINE_CHARACTERS
from server.translate import constraint
from tests.server.translate.test_generation import plain_usage
from tests.support.bodies import (
    CHAT,
    CHAT_PATH,
    EVERY_EVENT,
    NUM_CHAT_PROMPT_TOKENS,
    NUM_TOKENS,
    STREAMED_CHAT,
)
from tests.support.fake_engine import MODEL_ID, Script

pytestmark = pytest.mark.anyio


async def test_a_whole_answer_is_one_completion(client):
    answer = await client.post(CHAT_PATH, json=CHAT)
    body = answer.json()

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert (body["object"], body["model"], body["created"]) == ("chat.completion", MODEL_ID, 1_700_000_000)
    assert body["choices"][0]["message"] == {"role": "assistant", "content": EVERY_EVENT, "refusal": None}
    assert plain_usage(body) == {
        "prompt_tokens": NUM_CHAT_PROMPT_TOKENS,
        "completion_tokens": NUM_TOKENS,
        "total_tokens": NUM_CHAT_PROMPT_TOKENS + NUM_TOKENS,
    }


async def test_a_streamed_answer_ends_with_done(client):
    answer = await client.post(CHAT_PATH, json=STREAMED_CHAT)
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    deltas = [json.loads(event)["choices"][0]["delta"].get("content", "") for event in events[:-1]]

    assert answer.headers["content-type"].startswith("text/event-stream")
    assert events[-1] == "[DONE]"
    assert "".join(deltas) == EVERY_EVENT


async def test_the_conversation_reaches_the_template(client, engine):
    messages = [{"role": "developer", "content": [{"type": "text", "text": "Be brief"}]}, *CHAT["messages"]]
    await client.post(CHAT_PATH, json={**CHAT, "messages": messages})

    assert engine.messages == [
        [{"role": "system", "content": "Be brief"}, {"role": "user", "content": "Hi"}],
    ]


async def test_the_answers_id_is_the_requests(client, engine):
    body = (await client.post(CHAT_PATH, json=CHAT)).json()

    assert body["id"].startswith("chatcmpl-")
    assert engine.requests[0].request_id == body["id"]


async def test_an_answered_request_is_closed(client, engine):
    await client.post(CHAT_PATH, json=CHAT)

    assert engine.open_ids == set()


async def test_a_body_may_name_no_content_type_parameter(client):
    headers = {"Content-Type": "application/json; charset=utf-8"}
    answer = await client.post(CHAT_PATH, content=json.dumps(CHAT), headers=headers)

    assert answer.status_code == 200


async def test_an_answer_without_text_is_an_empty_one(client, engine):
    engine.script = Script(pieces=("",))
    body = (await client.post(CHAT_PATH, json=CHAT)).json()

    assert body["choices"][0]["message"]["content"] == ""


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": 3}, "temperature", "invalid_value"),
        ({"messages": []}, "messages", "invalid_value"),
        ({"messages": [{"role": "user"}]}, "messages[0].content", "missing_required_parameter"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role", "invalid_value"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url"}]}]},
            "messages[0].content[0]",
            "unsupported_parameter",
        ),
        ({"foo": 1}, "foo", "unknown_parameter"),
        ({"tools": [{}]}, "tools[0].type", "missing_required_parameter"),
        ({"tools": [{"type": "custom", "custom": {}}]}, "tools[0].type", "unsupported_parameter"),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs", "invalid_value"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
        ({"stream_options": {}}, "stream_options", "invalid_value"),
        ({"stream": True, "stream_options": {"x": 1}}, "stream_options.x", "unknown_parameter"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_body_is_a_400_that_names_the_parameter(client, engine, fields, param, code):
    answer = await client.post(CHAT_PATH, json={**CHAT, **fields})
    error = answer.json()["error"]

    assert answer.status_code == 400
    assert (error["param"], error["code"], error["type"]) == (param, code, "invalid_request_error")
    assert param.split(".")[-1].split("[")[0] in error["message"] or "content" in error["message"]
    assert engine.requests == []


@pytest.mark.parametrize("missing", ["model", "messages"])
async def test_a_missing_parameter_is_named(client, missing):
    body = {name: value for name, value in CHAT.items() if name != missing}
    error = (await client.post(CHAT_PATH, json=body)).json()["error"]

    assert (error["param"], error["code"]) == (missing, "missing_required_parameter")


async def test_an_unknown_parameter_is_named_in_openais_words(client):
    error = (await client.post(CHAT_PATH, json={**CHAT, "foo": 1})).json()["error"]

    assert error["message"] == "Unrecognized request argument supplied: foo"


async def test_not_a_number_is_refused(client):
    content = json.dumps({**CHAT, "temperature": float("nan")})
    answer = await client.post(CHAT_PATH, content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "temperature"


WHAT_THE_CACHE_KNEW = {
    "matched_tokens": 16,
    "block_size": 16,
    "miss_reason": "evicted",
    "first_missing_block": 1,
    "evicted_s_ago": 2.5,
}


async def test_what_the_cache_knew_is_told_where_asked_for(client):
    plain, asked = [
        (await client.post(CHAT_PATH, json={**CHAT, **more})).json() for more in ({}, {"cache_debug": True})
    ]

    assert "cache_debug" not in plain
    assert asked["cache_debug"] == WHAT_THE_CACHE_KNEW


async def test_a_stream_tells_once_what_the_cache_knew(client):
    answer = await client.post(CHAT_PATH, json={**STREAMED_CHAT, "n": 2, "cache_debug": True})
    chunks = [json.loads(line.removeprefix("data: ")) for line in answer.text.split("\n\n") if "{" in line]

    assert [chunk["cache_debug"] for chunk in chunks if "cache_debug" in chunk] == [WHAT_THE_CACHE_KNEW]


@pytest.mark.parametrize("path", [CHAT_PATH, "/v1/completions"])
async def test_a_grammar_is_read_beside_the_event_loop_whatever_its_length(client, engine, monkeypatch, path):
    begun: list[int] = []
    read: list[list[int]] = []
    consult, read_grammar = engine.consult, constraint._read_grammar

    async def consult_and_tell(work, size):
        begun.append(size)
        try:
            return await consult(work, size)
        finally:
            begun.pop()

    def read_and_tell(given, param):
        read.append([*begun])
        return read_grammar(given, param)

    monkeypatch.setattr(engine, "consult", consult_and_tell)
    monkeypatch.setattr(constraint, "_read_grammar", read_and_tell)
    body = CHAT if path == CHAT_PATH else {"model": MODEL_ID, "prompt": "Hi"}
    answer = await client.post(path, json={**body, "guided_grammar": 'root ::= "x"'})

    assert answer.status_code == 200
    assert len(read) == 1
    assert read[0][0] > INLINE_CHARACTERS
