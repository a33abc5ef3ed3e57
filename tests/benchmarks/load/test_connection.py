"""Bodies of all three kinds are read to their end, and connections are used again when they may be."""

import asyncio

import pytest

from benchmarks.load.connection import BrokenAnswerError, Host
from tests.support.event_server import Answer, EventServer, whole


def talk(server, ask):
    """What `ask(host)` gives, asked of `server`."""

    async def run():
        async with server.listening() as url:
            host = Host(url, api_key="secret")
            try:
                return await ask(host)
            finally:
                await host.close()

    return asyncio.run(run())


def test_a_body_of_told_length_is_read():
    server = EventServer(lambda body: Answer([b'{"a": 1}']))

    assert talk(server, lambda host: host.whole("POST", "/x", b"{}")) == (200, {"a": 1})


def test_a_chunked_body_is_put_together():
    server = EventServer(lambda body: Answer([b'{"a"', b": 1}"]))

    assert talk(server, lambda host: host.whole("POST", "/x", b"{}")) == (200, {"a": 1})


def test_what_is_not_json_is_text():
    server = EventServer(lambda body: Answer([b"busy"], 503))

    assert talk(server, lambda host: host.whole("POST", "/x", b"{}")) == (503, "busy")


def test_the_key_is_sent():
    server = EventServer(whole)

    talk(server, lambda host: host.get_json("/v1/models"))

    assert "Authorization: Bearer secret\r\n" in server.heads[0]


def test_a_connection_is_used_again():
    server = EventServer(lambda body: Answer([b"1"]))

    async def twice(host):
        await host.whole("POST", "/x", b"{}")
        await host.whole("POST", "/x", b"{}")

    talk(server, twice)

    assert server.num_connections == 1


def test_a_body_that_is_cut_off_is_broken():
    server = EventServer(lambda body: Answer([b"1", b"2"], is_cut=True))

    with pytest.raises(BrokenAnswerError):
        talk(server, lambda host: host.whole("POST", "/x", b"{}"))


def test_a_connection_is_not_used_after_a_broken_answer():
    answers = iter([Answer([b"1", b"2"], is_cut=True), Answer([b"3"])])
    server = EventServer(lambda body: next(answers))

    async def twice(host):
        with pytest.raises(BrokenAnswerError):
            await host.whole("POST", "/x", b"{}")
        return await host.whole("POST", "/x", b"{}")

    assert talk(server, twice) == (200, 3)
    assert server.num_connections == 2


def test_another_scheme_is_refused():
    with pytest.raises(ValueError, match="not a plain http address"):
        asyncio.run(Host("https://127.0.0.1:1").get_json("/v1/models"))
