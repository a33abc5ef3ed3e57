import asyncio
import json

import httpx
import pytest

from engine import StepError
from server.sse import CONNECTION, TokenEventResponse
from server.streams import MergedStreams, open_streams
from tests.server.test_streams import request
from tests.support.bodies import CHAT_PATH, STREAMED_CHAT
from tests.support.fake_engine import FakeEngine, Script


class PlainChunks:
    """Writes events as their bare text."""

    def add(self, prompt_index, event):
        return event.text.encode()

    def end(self):
        return b"[END]"


class OpenConnection:
    """Takes what is written to it, and passes it on like what is sent."""

    def __init__(self, sent: list[dict]) -> None:
        self._sent = sent

    def can_write_body(self) -> bool:
        return True

    def write_body(self, body: bytes) -> None:
        self._sent.append({"type": "written", "body": body})


async def respond(streams: MergedStreams, received: list[dict] | None = None, **options) -> list[dict]:
    """Run a response without a server; `received` is what its client sends, then silence."""
    sent, waiting = [], list(received or [])

    async def receive():
        if not waiting:
            await silence()
        return waiting.pop(0)

    async def send(message):
        sent.append(message)

    response = TokenEventResponse(streams, PlainChunks(), "req_1", **options)
    await response({"type": "http", "method": "POST"}, receive, send)
    return sent


async def silence():
    await asyncio.Event().wait()


def body_of(sent: list[dict]) -> bytes:
    return b"".join(message.get("body", b"") for message in sent)


@pytest.fixture
async def streams_for(engine: FakeEngine):
    async def make(script: Script) -> MergedStreams:
        engine.script = script
        return await open_streams(engine, [request()])

    return make


@pytest.mark.anyio
async def test_a_stream_is_its_chunks_then_its_end_then_done(streams_for):
    sent = await respond(await streams_for(Script(pieces=("a", "b"))))

    assert body_of(sent) == b"ab[END]data: [DONE]\n\n"


@pytest.mark.anyio
async def test_chunks_are_written_to_a_connection_where_they_arrive_and_the_end_is_sent(streams_for, engine):
    engine.gate.clear()
    sent: list[dict] = []

    async def send(message):
        sent.append(message)
        engine.gate.set()

    response = TokenEventResponse(await streams_for(Script(pieces=("a", "b"))), PlainChunks(), "req_1")
    state = {CONNECTION: OpenConnection(sent)}
    await response({"type": "http", "method": "POST", "state": state}, silence, send)

    kinds = [message["type"].rpartition(".")[2] for message in sent]
    assert kinds == ["start", "written", "written", "body", "body"]
    assert body_of(sent) == b"ab[END]data: [DONE]\n\n"


@pytest.mark.anyio
async def test_a_stream_says_that_proxies_must_not_hold_it_back(streams_for):
    headers = dict((await respond(await streams_for(Script())))[0]["headers"])

    assert headers[b"x-accel-buffering"] == b"no"
    assert headers[b"cache-control"] == b"no-store"
    assert headers[b"content-type"].startswith(b"text/event-stream")


@pytest.mark.anyio
async def test_an_engine_error_is_the_last_event(streams_for):
    body = body_of(await respond(await streams_for(Script(pieces=("a",), error=StepError("step 7 failed")))))
    last = body.removeprefix(b"a").decode()

    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "step_failed"
    assert last.endswith("\n\n")
    assert "[DONE]" not in last


@pytest.mark.anyio
async def test_an_unexpected_error_is_the_last_event_and_reveals_nothing(streams_for, caplog):
    body = body_of(await respond(await streams_for(Script(pieces=("a",), error=RuntimeError("secret")))))

    assert b"secret" not in body
    assert b"req_1" in body
    assert "secret" in caplog.text


@pytest.mark.anyio
async def test_a_client_that_leaves_before_the_first_event_is_noticed(streams_for, engine):
    engine.gate.clear()
    await respond(await streams_for(Script()), [{"type": "http.disconnect"}])

    assert engine.open_ids == set()


@pytest.mark.anyio
async def test_while_nothing_comes_there_are_comments(streams_for, engine):
    engine.gate.clear()
    streams = await streams_for(Script(pieces=("a",)))
    sent: list[bytes] = []

    async def send(message):
        sent.append(message.get("body", b""))
        if b"ping" in sent[-1]:
            engine.gate.set()

    response = TokenEventResponse(streams, PlainChunks(), "req_1", ping_s=0.01)
    await response({"type": "http", "method": "POST"}, silence, send)

    assert b": ping\n\n" in sent
    assert b"a" in sent


def test_each_token_is_sent_when_it_comes(live):
    engine = live.engine
    engine.script = Script(pieces=("one", "two"), is_endless=True)
    with httpx.stream("POST", live.url + CHAT_PATH, json=STREAMED_CHAT) as answer:
        lines = answer.iter_lines()
        texts = []
        while "two" not in texts:
            line = next(lines)
            if line:
                texts.append(json.loads(line.removeprefix("data: "))["choices"][0]["delta"].get("content"))

    assert texts == ["", "one", "two"]


def test_a_client_that_leaves_a_stream_frees_it(live):
    engine = live.engine
    engine.script = Script(is_endless=True)
    with httpx.stream("POST", live.url + CHAT_PATH, json=STREAMED_CHAT) as answer:
        lines = answer.iter_lines()
        next(lines)
        was_open = len(engine.open_ids)
    live.wait(engine.closed)

    assert (was_open, len(engine.open_ids)) == (1, 0)


def test_a_stream_that_the_engine_ends_when_stopping_tells_why(live):
    live.engine.script = Script(is_endless=True)
    with httpx.stream("POST", live.url + CHAT_PATH, json=STREAMED_CHAT) as answer:
        lines = answer.iter_lines()
        next(lines)
        live.submit(live.engine.stop(0))
        rest = list(lines)

    assert json.loads(rest[-2].removeprefix("data: "))["error"]["code"] == "engine_unavailable"
