"""Serving a fake engine: most of it on the test's own event loop, the signals in a real program."""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import httpx
import pytest
import uvicorn

from engine import ConfigError, EngineCrashedError, EngineState
from server.app import create_app
from server.serving import DrainingServer, bind
from server.settings import Settings
from tests.support.bodies import CHAT, CHAT_PATH, STREAMED_CHAT
from tests.support.fake_engine import FakeEngine, Script

TIMEOUT_S = 20


class Serving:
    """A DrainingServer on this event loop, its exit status to come, and a client of it."""

    def __init__(self, server: DrainingServer, ending: asyncio.Task[int], client: httpx.AsyncClient) -> None:
        self.server = server
        self.ending = ending
        self.client = client

    def signal(self) -> None:
        self.server.handle_exit(signal.SIGTERM, None)

    async def status(self) -> int:
        return await asyncio.wait_for(self.ending, TIMEOUT_S)


@asynccontextmanager
async def serving(engine: FakeEngine, drain_s: float) -> AsyncIterator[Serving]:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        config = uvicorn.Config(create_app(Settings(drain_s=drain_s), engine), log_config=None, lifespan="on")
        server = DrainingServer(config, engine, drain_s)
        ending = asyncio.create_task(server.serve_until_done(listener))
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
            await client.get("/health")
            yield Serving(server, ending, client)


@pytest.mark.anyio
async def test_while_it_drains_new_work_is_503_and_running_work_goes_on(engine: FakeEngine):
    engine.script = Script(is_endless=True)
    async with serving(engine, drain_s=600) as running:
        async with running.client.stream("POST", CHAT_PATH, json=STREAMED_CHAT) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            running.signal()
            await asyncio.wait_for(engine.draining.wait(), TIMEOUT_S)
            refused = await running.client.post(CHAT_PATH, json=CHAT)
            num_open = len(engine.open_ids)
        status = await running.status()

    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    assert "draining" in refused.json()["error"]["message"]
    assert (num_open, status) == (1, 0)


@pytest.mark.anyio
async def test_what_does_not_finish_in_time_ends_with_an_error_event(engine: FakeEngine):
    engine.script = Script(is_endless=True)
    async with serving(engine, drain_s=0.05) as running:
        async with running.client.stream("POST", CHAT_PATH, json=STREAMED_CHAT) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            running.signal()
            events = [line async for line in lines if line]
        status = await running.status()

    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert status == 0


@pytest.mark.anyio
async def test_a_server_that_is_loading_can_be_stopped(engine: FakeEngine):
    engine.state = EngineState.STARTING
    async with serving(engine, drain_s=0) as running:
        running.signal()
        status = await running.status()

    assert status == 0


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("error", "status"),
    [(ConfigError("window is -1"), 2), (EngineCrashedError("died 6 times"), 1)],
    ids=["config", "crash"],
)
async def test_an_engine_that_fails_for_good_ends_the_server(engine: FakeEngine, caplog, error, status):
    async with serving(engine, drain_s=0) as running:
        engine.fail(error)
        ended = await running.status()

    assert ended == status
    assert error.message in caplog.text


class Program:
    """A server program under way."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Its exit status and what it logged."""
        _, log = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, log

    def until(self, status_code: int) -> httpx.Response:
        """The first answer of /ready that has this status."""
        deadline = time.monotonic() + TIMEOUT_S
        while time.monotonic() < deadline:
            try:
                answer = httpx.get(self.url + "/ready")
            except httpx.TransportError:
                continue
            if answer.status_code == status_code:
                return answer
        raise AssertionError("it never came")


@contextmanager
def program(*arguments: str) -> Iterator[Program]:
    """The server of `tests.support.fake_server`, listening."""
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.support.fake_server", *arguments, f"--port={port}"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        yield Program(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()


def test_a_signal_ends_an_idle_program_with_status_zero():
    with program("answering") as server:
        server.until(200)
        server.signal(signal.SIGTERM)
        status, log = server.wait()

    assert status == 0
    assert f"listening address={server.url}" in log
    assert "Traceback" not in log


def test_a_second_signal_ends_a_program_at_once():
    with program("endless", "--drain-s=600") as server:
        server.until(200)
        with httpx.stream("POST", server.url + CHAT_PATH, json=STREAMED_CHAT, timeout=TIMEOUT_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.signal(signal.SIGINT)
            server.until(503)
            server.signal(signal.SIGINT)
            status, _ = server.wait()

    assert status == 128 + signal.SIGINT


def test_a_program_whose_setting_cannot_work_ends_with_status_two_and_the_message():
    with program("broken") as server:
        status, log = server.wait()

    assert status == 2
    assert "window is -1" in log
    assert "Traceback" not in log


class UnstoppableEngine(FakeEngine):
    """Fails while it is stopped."""

    async def stop(self, drain_s: float = 0.0) -> None:
        self.draining.set()
        raise RuntimeError("cannot stop")


@pytest.mark.anyio
async def test_a_server_whose_engine_cannot_be_stopped_ends_all_the_same(caplog):
    async with serving(UnstoppableEngine(), drain_s=0) as running:
        running.signal()
        status = await running.status()

    assert status == 1
    assert "cannot stop" in caplog.text


def test_an_address_that_is_taken_is_refused_by_name():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}: .* in use"):
            bind("127.0.0.1", port)


def test_a_host_that_is_not_there_is_refused_by_name():
    with pytest.raises(OSError, match=r"no\.such\.host\.invalid"):
        bind("no.such.host.invalid", 0)


def test_localhost_is_the_ipv4_loopback():
    with bind("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
def test_an_ipv6_address_can_be_bound():
    with bind("::1", 0) as listener:
        assert listener.family is socket.AF_INET6
