import json

import pytest

from tests.server.translate.test_generation import plain_usage
from tests.support.bodies import COMPLETION, COMPLETION_PATH, EVERY_EVENT, NUM_TOKENS, STREAMED_COMPLETION
from tests.support.fake_engine import MODEL_ID

pytestmark = pytest.mark.anyio


async def test_a_whole_answer_is_one_completion(client):
    body = (await client.post(COMPLETION_PATH, json=COMPLETION)).json()

    assert (body["object"], body["model"], body["created"]) == ("text_completion", MODEL_ID, 1_700_000_000)
    assert body["choices"] == [{"index": 0, "text": EVERY_EVENT, "logprobs": None, "finish_reason": "stop"}]
    assert plain_usage(body) == {
        "prompt_tokens": 2,
        "completion_tokens": NUM_TOKENS,
        "total_tokens": 2 + NUM_TOKENS,
    }


@pytest.mark.parametrize(
    ("prompt", "prompt_ids"),
    [
        ("Hi", [(72, 105)]),
        (["a", "bc"], [(97,), (98, 99)]),
        ([7, 8], [(7, 8)]),
        ([[7], [8, 9]], [(7,), (8, 9)]),
    ],
    ids=["text", "texts", "ids", "id lists"],
)
async def test_every_form_of_prompt_reaches_the_engine(client, engine, prompt, prompt_ids):
    answer = await client.post(COMPLETION_PATH, json={**COMPLETION, "prompt": prompt, "n": 2})

    assert [request.prompt_ids for request in engine.requests] == prompt_ids
    assert [choice["index"] for choice in answer.json()["choices"]] == list(range(2 * len(prompt_ids)))
    assert engine.open_ids == set()


async def test_several_prompts_stream_side_by_side(client):
    body = {**STREAMED_COMPLETION, "prompt": ["a", "b"], "n": 2}
    answer = await client.post(COMPLETION_PATH, json=body)
    events = [line.removeprefix("data: ") for line in answer.text.split("\n\n") if line]
    texts = ["", "", "", ""]
    for event in events[:-1]:
        choice = json.loads(event)["choices"][0]
        texts[choice["index"]] += choice["text"]

    assert texts == [EVERY_EVENT] * 4
    assert events[-1] == "[DONE]"


async def test_an_empty_prompt_is_a_400(client):
    answer = await client.post(COMPLETION_PATH, json={**COMPLETION, "prompt": ""})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


async def test_an_id_outside_the_vocabulary_is_a_400(client):
    answer = await client.post(COMPLETION_PATH, json={**COMPLETION, "prompt": [2**30]})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "prompt"


async def test_of_several_prompts_one_bad_one_refuses_all(client, engine):
    answer = await client.post(COMPLETION_PATH, json={**COMPLETION, "prompt": [[1], [2**30]]})

    assert answer.status_code == 400
    assert engine.open_ids == set()


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"prompt": None}, "prompt", "invalid_type"),
        ({"prompt": []}, "prompt", "invalid_type"),
        ({"prompt": ["a", 5]}, "prompt[1]", "invalid_type"),
        ({"prompt": [[1], []]}, "prompt[1]", "invalid_value"),
        ({"prompt": [1, -1]}, "prompt[1]", "invalid_value"),
        ({"logprobs": 6}, "logprobs", "invalid_value"),
        ({"suffix": "x"}, "suffix", "invalid_value"),
        ({"max_tokens": 0}, "max_tokens", "invalid_value"),
        ({"messages": []}, "messages", "unknown_parameter"),
    ],
    ids=lambda value: str(value)[:40],
)
async def test_a_bad_body_is_a_400_that_names_the_parameter(client, engine, fields, param, code):
    answer = await client.post(COMPLETION_PATH, json={**COMPLETION, **fields})
    error = answer.json()["error"]

    assert answer.status_code == 400
    assert (error["param"], error["code"]) == (param, code)
    assert engine.requests == []


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streaming", "whole"])
async def test_what_the_cache_knew_is_told_for_each_prompt(client, is_streaming):
    body = {**COMPLETION, "prompt": ["a", "b"], "cache_debug": True, "stream": is_streaming}
    answer = await client.post(COMPLETION_PATH, json=body)
    lines = answer.text.split("\n\n") if is_streaming else [answer.text]
    choices = [
        choice
        for line in lines
        if "{" in line
        for choice in json.loads(line.removeprefix("data: "))["choices"]
        if "cache_debug" in choice
    ]

    assert sorted(choice["index"] for choice in choices) == [0, 1]
    assert {choice["cache_debug"]["miss_reason"] for choice in choices} == {"evicted"}
