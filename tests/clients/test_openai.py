"""The official Python package of this environment, and curl, against a real server with a real model."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator

import openai
import pytest

from tests.clients.conftest import MODEL

pytestmark = [pytest.mark.clients, pytest.mark.demo_model, pytest.mark.timeout(600)]

CHAT = {
    "model": MODEL,
    "messages": [{"role": "user", "content": "What is the capital of France?"}],
    "temperature": 0,
    "max_tokens": 12,
}
ANSWER = "The capital of France is Paris."
NUM_TOKENS = 8


@pytest.fixture
def client(url) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
        yield client


def test_a_whole_answer_and_a_stream_say_the_same(client):
    whole = client.chat.completions.create(**CHAT)
    chunks = list(client.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}))

    assert whole.choices[0].message.content == ANSWER
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks[:-1]) == ANSWER
    told = chunks[-1].usage
    assert (told.prompt_tokens, told.completion_tokens) == (whole.usage.prompt_tokens, NUM_TOKENS)
    assert told.prompt_tokens_details.cached_tokens > 0, "the same prompt was computed before"


def test_a_raw_response_shows_headers_and_parses(client):
    raw = client.chat.completions.with_raw_response.create(**CHAT)

    assert raw.headers["x-request-id"] == raw.parse()._request_id
    assert raw.parse().choices[0].message.content == ANSWER


def test_the_stream_helper_accumulates_text_and_log_probabilities(client):
    with client.chat.completions.stream(**CHAT, logprobs=True, top_logprobs=2) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()

    assert {"content.delta", "content.done", "logprobs.content.delta"} <= set(kinds)
    assert final.choices[0].message.content == ANSWER
    assert [len(entry.top_logprobs) for entry in final.choices[0].logprobs.content] == [2] * NUM_TOKENS
    # Greedy: the chosen token's is the very float of the top one.
    assert all(entry.logprob == entry.top_logprobs[0].logprob for entry in final.choices[0].logprobs.content)


def test_the_asynchronous_client_asks_many_at_once(url):
    async def ask():
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="any", max_retries=0) as client:
            answers = (client.chat.completions.create(**CHAT) for _ in range(3))
            return [answer.choices[0].message.content for answer in await asyncio.gather(*answers)]

    assert asyncio.run(ask()) == [ANSWER] * 3


def test_a_prompt_is_scored_without_drawing(client):
    scored = client.completions.create(
        model=MODEL, prompt="The capital of France is Paris", max_tokens=0, echo=True, logprobs=2
    )
    logprobs = scored.choices[0].logprobs

    assert scored.choices[0].text == "".join(logprobs.tokens) == "The capital of France is Paris"
    assert logprobs.token_logprobs[0] is None
    assert logprobs.token_logprobs[-1] == logprobs.top_logprobs[-1][" Paris"]
    assert scored.usage.completion_tokens == 0


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_whole_and_streamed_answers(url):
    def curl(**changes: object) -> str:
        body = json.dumps({**CHAT, **changes})
        command = ["curl", "-sN", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json"]
        return subprocess.run(
            [*command, "-d", body], capture_output=True, text=True, check=True, timeout=120
        ).stdout

    events = [line.removeprefix("data: ") for line in curl(stream=True).splitlines() if line]
    streamed = "".join(json.loads(e)["choices"][0]["delta"].get("content") or "" for e in events[:-1])

    assert json.loads(curl())["choices"][0]["message"]["content"] == streamed == ANSWER
    assert events[-1] == "[DONE]"
