"""The clients that others use, against a live server: the official package, and curl."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator

import openai
import pytest

from engine import ConfigError, EngineState, StepError
from server.settings import Settings
from tests.support.bodies import CHAT, CHAT_PATH, COMPLETION, EVERY_EVENT, NUM_TOKENS, STREAMED_CHAT
from tests.support.fake_engine import MODEL_ID, FakeEngine, Script
from tests.support.live_server import LiveServer, live_server


@pytest.fixture
def client(live: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
        yield client


def in_async_client(live: LiveServer, ask):
    """What `ask` makes of the official asynchronous client."""

    async def run():
        async with openai.AsyncOpenAI(base_url=f"{live.url}/v1", api_key="any", max_retries=0) as client:
            return await ask(client)

    return asyncio.run(run())


def test_the_client_reads_a_whole_chat_answer(client):
    answer = client.chat.completions.create(**CHAT)

    assert answer.choices[0].message.content == EVERY_EVENT
    assert answer.usage.completion_tokens == NUM_TOKENS
    assert answer._request_id.startswith("req_")


def test_the_client_reads_a_streamed_chat_answer(client):
    chunks = list(client.chat.completions.create(**STREAMED_CHAT, stream_options={"include_usage": True}))

    assert "".join(c.choices[0].delta.content or "" for c in chunks[:-1]) == EVERY_EVENT
    assert chunks[-1].usage.completion_tokens == NUM_TOKENS


def test_the_clients_own_accumulation_equals_the_whole_answer(client):
    with client.chat.completions.stream(**CHAT) as stream:
        final = stream.get_final_completion()

    assert final.choices[0].message.content == EVERY_EVENT
    assert final.choices[0].finish_reason == "stop"


def test_the_client_reads_a_whole_completion(client):
    answer = client.completions.create(**COMPLETION, n=2, logprobs=0)

    assert [choice.text for choice in answer.choices] == [EVERY_EVENT] * 2
    assert answer.choices[0].logprobs.tokens == list(EVERY_EVENT)


def test_the_client_reads_a_streamed_completion(client):
    chunks = list(client.completions.create(**COMPLETION, stream=True))

    assert "".join(chunk.choices[0].text for chunk in chunks) == EVERY_EVENT


def test_the_client_lists_and_finds_the_model(client):
    assert [model.id for model in client.models.list()] == [MODEL_ID]
    assert client.models.retrieve(MODEL_ID).id == MODEL_ID


def test_the_asynchronous_client_reads_a_whole_answer(live):
    answer = in_async_client(live, lambda client: client.chat.completions.create(**CHAT))

    assert answer.choices[0].message.content == EVERY_EVENT


def test_the_asynchronous_client_reads_many_streams_at_once(live):
    async def read(client):
        stream = await client.chat.completions.create(**STREAMED_CHAT)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def read_many(client):
        return await asyncio.gather(*(read(client) for _ in range(8)))

    assert in_async_client(live, read_many) == [EVERY_EVENT] * 8


def test_a_bad_request_is_the_clients_bad_request_error(client):
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(**CHAT, temperature=9)

    assert (caught.value.param, caught.value.code) == ("temperature", "invalid_value")


def test_an_unknown_model_is_the_clients_not_found_error(client):
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(**{**CHAT, "model": "gpt-4"})

    assert caught.value.code == "model_not_found"


def test_a_wrong_key_is_the_clients_authentication_error():
    with live_server(FakeEngine, Settings(api_key=("right",))) as live:
        wrong = openai.OpenAI(base_url=f"{live.url}/v1", api_key="wrong", max_retries=0)
        right = openai.OpenAI(base_url=f"{live.url}/v1", api_key="right", max_retries=0)
        with wrong, right:
            assert right.models.list().data[0].id == MODEL_ID
            with pytest.raises(openai.AuthenticationError):
                wrong.models.list()


def test_a_loading_engine_is_the_clients_503(live, client):
    live.engine.state, live.engine.card = EngineState.STARTING, None
    with pytest.raises(openai.InternalServerError) as caught:
        client.chat.completions.create(**CHAT)

    assert caught.value.status_code == 503
    assert caught.value.response.headers["retry-after"]


def test_the_client_does_not_repeat_a_500(live, client):
    live.engine.submit_error = StepError("broke")
    with pytest.raises(openai.InternalServerError):
        client.with_options(max_retries=2).chat.completions.create(**CHAT)

    assert len(live.engine.messages) == 1


def test_an_error_in_mid_stream_is_the_clients_api_error(live, client):
    live.engine.script = Script(pieces=("one",), error=StepError("step 7 failed"))
    seen = []
    with pytest.raises(openai.APIError, match="step 7 failed") as caught:
        seen.extend(
            chunk.choices[0].delta.content for chunk in client.chat.completions.create(**STREAMED_CHAT)
        )

    assert caught.value.code == "step_failed"


def test_an_unexpected_error_in_mid_stream_is_the_clients_api_error(live, client):
    live.engine.script = Script(pieces=("one",), error=ConfigError("odd"))
    with pytest.raises(openai.APIError):
        list(client.chat.completions.create(**STREAMED_CHAT))


def test_a_client_that_closes_its_stream_frees_it(live, client):
    live.engine.script = Script(is_endless=True)
    stream = client.chat.completions.create(**STREAMED_CHAT)
    next(iter(stream))
    stream.close()
    live.wait(live.engine.closed)

    assert live.engine.open_ids == set()


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_reads_a_stream_line_by_line(live):
    command = [
        "curl",
        "-sN",
        live.url + CHAT_PATH,
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(STREAMED_CHAT),
    ]
    lines = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout.split(
        "\n\n"
    )

    assert lines[-2] == "data: [DONE]"
    assert json.loads(lines[1].removeprefix("data: "))["choices"][0]["delta"]["content"] == "Hello"


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl_that_is_stopped_frees_its_stream(live):
    live.engine.script = Script(is_endless=True)
    command = [
        "curl",
        "-sN",
        live.url + CHAT_PATH,
        "-H",
        "Content-Type: application/json",
        "-d",
        json.dumps(STREAMED_CHAT),
    ]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as curl:
        curl.stdout.readline()
        curl.terminate()
    live.wait(live.engine.closed)

    assert live.engine.open_ids == set()
