"""Real sockets, on the event loop of the test: clients that are slow, or send what is no request."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import uvicorn

from server.connection import MAX_HEAD_BYTES, BoundedConnection, bounded
from server.serving import bind
from server.sse import CONNECTION
from tests.support.until import until

LIMIT_S = 0.2
PATIENCE_S = 15.0
HEAD = b"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n"
ANSWER_BYTES = 32 << 20


class Application:
    """Echoes a body, or writes a long answer; notes how often it was told that the client is gone."""

    def __init__(self) -> None:
        self.num_gone = 0
        self.bodies: list[bytes] = []
        self.could_write: list[bool] = []

    async def __call__(self, scope, receive, send) -> None:
        if scope["type"] != "http":
            return
        body = b""
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                self.num_gone += 1
                return
            body += message["body"]
            if not message["more_body"]:
                break
        self.bodies.append(body)
        if scope["path"].startswith("/direct"):
            await self.answer_directly(scope["state"][CONNECTION], receive, send, body)
            return
        answer = b"x" * ANSWER_BYTES if scope["path"] == "/long" else body
        headers = [(b"content-length", str(len(answer)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer[: len(answer) // 2], "more_body": True})
        await send({"type": "http.response.body", "body": answer[len(answer) // 2 :]})

    async def answer_directly(self, connection: BoundedConnection, receive, send, body: bytes) -> None:
        """Echoes each byte of a body as a part of its own; behind "!" until there is no room for more."""

        def note() -> None:
            self.could_write.append(connection.can_write_body())

        note()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        note()
        for byte in body:
            connection.write_body(bytes([byte]))
        if body.startswith(b"!"):
            while connection.can_write_body():
                connection.write_body(b"x" * (64 << 10))
            note()
            await receive()
        await send({"type": "http.response.body", "body": b"|" + body})
        note()


class Served:
    """A server, its application, and clients of it."""

    def __init__(self, app: Application, server: uvicorn.Server, port: int) -> None:
        self.app = app
        self.connections = server.server_state.connections
        self._port = port

    async def connect(self, **limits: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection("127.0.0.1", self._port, **limits)

    async def until_closed(self) -> None:
        await until(lambda: not self.connections)


@asynccontextmanager
async def serving(limit_s: float = LIMIT_S) -> AsyncIterator[Served]:
    app = Application()
    config = uvicorn.Config(
        app, log_config=None, http=bounded(limit_s), h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        timeout_graceful_shutdown=1, lifespan="off",
    )  # fmt: skip
    server = uvicorn.Server(config)
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        running = asyncio.create_task(server._serve([listener]))
        served = Served(app, server, listener.getsockname()[1])
        try:
            yield served
        finally:
            server.should_exit = True
            await asyncio.wait_for(running, PATIENCE_S)


async def ending(reader: asyncio.StreamReader) -> tuple[int | None, dict]:
    """Status and error of what is sent until the connection closes; None if that is nothing."""
    try:
        sent = await asyncio.wait_for(reader.read(), PATIENCE_S)
    except ConnectionResetError:
        return None, {}
    if not sent:
        return None, {}
    head, _, body = sent.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)["error"]


@pytest.mark.anyio
@pytest.mark.parametrize("sent", [b"POST /ec", HEAD, HEAD + b"\r\nab"], ids=["line", "headers", "body"])
async def test_a_request_that_never_becomes_whole_gets_408(sent):
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(sent)
        status, error = await ending(reader)
        writer.close()
        await served.until_closed()

    assert (status, error["type"], error["code"]) == (408, "invalid_request_error", "request_not_sent")
    assert served.app.bodies == []
    assert served.app.num_gone == (1 if sent.endswith(b"ab") else 0)


@pytest.mark.anyio
async def test_bytes_that_trickle_in_do_not_prolong_a_requests_time():
    async with serving() as served:
        reader, writer = await served.connect()
        answer = asyncio.create_task(ending(reader))
        for byte in HEAD * 100:
            if answer.done():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(LIMIT_S / 10)
        status, _ = await answer
        writer.close()

    assert status == 408


@pytest.mark.anyio
async def test_a_connection_on_which_nothing_is_sent_is_closed_without_a_word():
    async with serving() as served:
        reader, writer = await served.connect()

        assert await ending(reader) == (None, {})
        writer.close()


@pytest.mark.anyio
async def test_a_later_request_of_a_connection_has_its_time_too():
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(HEAD + b"\r\nabcd")
        await reader.readuntil(b"abcd")
        writer.write(b"POST /echo")
        status, _ = await ending(reader)
        writer.close()

    assert (status, served.app.bodies) == (408, [b"abcd"])


@pytest.mark.anyio
async def test_requests_in_time_are_answered_one_after_the_other():
    async with serving() as served:
        reader, writer = await served.connect()
        for body in (b"abcd", b"efgh", b"ijkl"):
            writer.write(HEAD + b"\r\n" + body[:2])
            await asyncio.sleep(LIMIT_S / 2)
            writer.write(body[2:])
            await asyncio.wait_for(reader.readuntil(body), PATIENCE_S)
        writer.close()

    assert served.app.bodies == [b"abcd", b"efgh", b"ijkl"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sent", [b"GET /" + b"a" * MAX_HEAD_BYTES, b"GET / HTTP/1.1\r\nHost: h\r\nx: " + b"a" * MAX_HEAD_BYTES],
    ids=["path", "header"],
)  # fmt: skip
async def test_a_head_above_the_limit_gets_431(sent):
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(sent + b"a")
        status, error = await ending(reader)
        writer.close()

    assert (status, error["code"]) == (431, "head_too_large")
    assert str(MAX_HEAD_BYTES) in error["message"]


@pytest.mark.anyio
async def test_a_client_that_goes_on_sending_what_is_refused_still_reads_why():
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"GET / HTTP/1.1\r\nx: " + b"a" * (4 << 20))
        status, _ = await ending(reader)
        writer.close()
        await served.until_closed()

    assert status == 431


@pytest.mark.anyio
@pytest.mark.parametrize(
    "sent", [b"hello\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\r\n\r\n", HEAD + b"Content-Length: 9\r\n\r\n"],
    ids=["words", "tls", "two lengths"],
)  # fmt: skip
async def test_what_is_no_request_gets_400(sent):
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(sent)
        status, error = await ending(reader)
        writer.close()

    assert (status, error["code"]) == (400, "invalid_http")


@pytest.mark.anyio
async def test_a_broken_body_ends_the_request_that_waits_for_it():
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
        status, _ = await ending(reader)
        writer.close()
        await served.until_closed()

    assert (status, served.app.num_gone, served.app.bodies) == (400, 1, [])


@pytest.mark.anyio
async def test_a_client_that_takes_nothing_of_its_answer_is_cut_off(caplog):
    caplog.set_level("INFO", "server.connection")
    async with serving() as served:
        _, writer = await served.connect(limit=1024)
        writer.write(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n")
        await until(lambda: served.app.bodies)
        await served.until_closed()
        writer.close()

    assert "client cut off" in caplog.text


@pytest.mark.anyio
async def test_a_client_that_takes_its_answer_slowly_gets_all_of_it():
    async with serving(limit_s=0.4) as served:
        reader, writer = await served.connect(limit=8 << 20)
        writer.write(b"GET /long HTTP/1.1\r\nHost: h\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        for _ in range(8):
            await asyncio.wait_for(reader.readexactly(ANSWER_BYTES // 8), PATIENCE_S)
            await asyncio.sleep(0.1)
        writer.close()


@pytest.mark.anyio
async def test_parts_of_an_answer_can_be_written_to_its_connection_at_once():
    async with serving() as served:
        reader, writer = await served.connect()
        for _ in range(2):
            writer.write(HEAD.replace(b"/echo", b"/direct") + b"\r\nabcd")
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), PATIENCE_S)
            body = await asyncio.wait_for(reader.readuntil(b"\r\n0\r\n\r\n"), PATIENCE_S)

            assert b"transfer-encoding: chunked" in head.lower()
            assert body == b"1\r\na\r\n1\r\nb\r\n1\r\nc\r\n1\r\nd\r\n5\r\n|abcd\r\n0\r\n\r\n"
        writer.close()

    assert served.app.could_write == [False, True, False] * 2


@pytest.mark.anyio
async def test_what_is_written_at_once_reaches_an_older_client_without_frames():
    async with serving() as served:
        reader, writer = await served.connect()
        writer.write(b"POST /direct HTTP/1.0\r\nContent-Length: 4\r\n\r\nabcd")
        sent = await asyncio.wait_for(reader.read(), PATIENCE_S)
        writer.close()

    assert sent.partition(b"\r\n\r\n")[2] == b"abcd|abcd"


@pytest.mark.anyio
async def test_nothing_can_be_written_at_once_to_a_client_that_is_behind():
    async with serving() as served:
        _, writer = await served.connect(limit=1024)
        writer.write(HEAD.replace(b"/echo", b"/direct") + b"\r\n!bcd")
        await served.until_closed()
        await until(lambda: len(served.app.could_write) == 4)
        writer.close()

    assert served.app.could_write == [False, True, False, False]
