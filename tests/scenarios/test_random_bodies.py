"""Whatever a body says, the answer is never a failure of the server."""

import asyncio
import json
from functools import cache

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.app import create_app
from server.schemas.chat import ChatCompletionRequest
from server.schemas.completions import CompletionRequest
from server.schemas.tokens import DetokenizeRequest, TokenizeRequest
from server.settings import Settings
from tests.support.bodies import CHAT, CHAT_PATH, COMPLETION, COMPLETION_PATH
from tests.support.fake_engine import FakeEngine

TEXT = st.text(st.characters(), max_size=8)  # lone surrogates included
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
PROMPTS = (
    TEXT
    | st.lists(TEXT | st.integers(-1, 2**33), max_size=3)
    | st.lists(st.lists(st.integers(0, 99), max_size=3), max_size=3)
)
ROLES = st.sampled_from(["system", "developer", "user", "assistant", "tool", "king"])
MESSAGES = st.lists(
    st.fixed_dictionaries({"role": ROLES, "content": TEXT | JSON}, optional={"name": TEXT, "refusal": JSON}),
    max_size=3,
)
LIKELY = st.sampled_from([None, True, False, 0, 1, 2, 0.5, "", "a", [], ["a"], {}])


def bodies(fixed: dict, model: type, **likely) -> st.SearchStrategy:
    """Bodies that are right but for some fields, which are likely values or anything at all."""
    names = sorted(set(model.model_fields) | set(model.REFUSED))
    changed = st.dictionaries(st.sampled_from(names) | TEXT, LIKELY | JSON, max_size=4)
    sensible = st.fixed_dictionaries({}, optional=likely)
    return st.builds(lambda some, more: {**fixed, **some, **more}, sensible, changed)


@cache
def app() -> FastAPI:
    """One for all bodies: it puts its routes together at its first request, and that takes longest."""
    return create_app(Settings(), FakeEngine())


def post(path: str, content: str | bytes) -> httpx.Response:
    async def run() -> httpx.Response:
        transport = httpx.ASGITransport(app())
        async with httpx.AsyncClient(transport=transport, base_url="http://server") as client:
            return await client.post(path, content=content, headers={"Content-Type": "application/json"})

    return asyncio.run(run())


def check(answer: httpx.Response) -> None:
    assert answer.status_code < 500, answer.text
    if answer.status_code != 200:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@settings(max_examples=100)
@given(bodies(CHAT, ChatCompletionRequest, messages=MESSAGES, n=st.integers(0, 3), stream=st.booleans()))
def test_no_chat_body_makes_the_server_fail(body):
    check(post(CHAT_PATH, json.dumps(body)))


@settings(max_examples=100)
@given(bodies(COMPLETION, CompletionRequest, prompt=PROMPTS, n=st.integers(0, 3), stream=st.booleans()))
def test_no_completion_body_makes_the_server_fail(body):
    check(post(COMPLETION_PATH, json.dumps(body)))


@settings(max_examples=60)
@given(bodies({"prompt": "Hi"}, TokenizeRequest, messages=MESSAGES))
def test_no_text_to_tokenize_makes_the_server_fail(body):
    check(post("/tokenize", json.dumps(body)))


@settings(max_examples=40)
@example({"tokens": [0xD800]})
@given(bodies({"tokens": [72]}, DetokenizeRequest, tokens=st.lists(st.integers(-1, 2**33), max_size=3)))
def test_no_tokens_make_the_server_fail(body):
    check(post("/detokenize", json.dumps(body)))


@settings(max_examples=60)
@given(bodies(CHAT, ChatCompletionRequest, messages=MESSAGES, safe_prompt=st.booleans()))
def test_no_conversation_to_render_makes_the_server_fail(body):
    check(post(f"{CHAT_PATH}/render", json.dumps(body)))


@settings(max_examples=60)
@given(st.sampled_from([CHAT_PATH, COMPLETION_PATH]), JSON.map(json.dumps) | st.binary(max_size=20))
def test_no_content_at_all_makes_the_server_fail(path, content):
    check(post(path, content))


@pytest.mark.slow
@settings(max_examples=3000)
@given(bodies(CHAT, ChatCompletionRequest, messages=MESSAGES, n=st.integers(0, 3), stream=st.booleans()))
def test_none_of_thousands_of_chat_bodies_makes_the_server_fail(body):
    check(post(CHAT_PATH, json.dumps(body)))
