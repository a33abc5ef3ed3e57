"""Serving a fake engine on the test's own event loop, and how the application is served."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn

from engine import ConfigError, EngineCrashedError, EngineState
from server.app import create_app
from server.http_server import DrainingServer, http_config
from server.serving import bind, url_of
from server.settings import Settings
from tests.support.bodies import CHAT, CHAT_PATH, STREAMED_CHAT
from tests.support.fake_engine import FakeEngine, Script

TIMEOUT_S = 20


class Serving:
    """A DrainingServer on this event loop, its exit status to come, and a client of it."""

    def __init__(self, stopping: asyncio.Event, ending: asyncio.Task[int], client: httpx.AsyncClient) -> None:
        self.stopping = stopping
        self.ending = ending
        self.client = client

    async def status(self) -> int:
        return await asyncio.wait_for(self.ending, TIMEOUT_S)


@asynccontextmanager
async def serving(engine: FakeEngine, drain_s: float) -> AsyncIterator[Serving]:
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        config = uvicorn.Config(create_app(Settings(drain_s=drain_s), engine), log_config=None, lifespan="on")
        stopping = asyncio.Event()
        server = DrainingServer(config, engine, drain_s, stopping)
        url = url_of(listener, has_tls=False)
        ending = asyncio.create_task(server.serve_until_done(listener, url))
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
            await client.get("/health")
            yield Serving(stopping, ending, client)


@pytest.mark.anyio
async def test_while_it_drains_new_work_is_503_and_running_work_goes_on(engine: FakeEngine):
    engine.script = Script(is_endless=True)
    async with serving(engine, drain_s=600) as running:
        async with running.client.stream("POST", CHAT_PATH, json=STREAMED_CHAT) as answer:
            lines = answer.aiter_lines()
            await anext(lines)
            running.stopping.set()
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
            running.stopping.set()
            events = [line async for line in lines if line]
        status = await running.status()

    assert json.loads(events[-1].removeprefix("data: "))["error"]["code"] == "engine_unavailable"
    assert status == 0


@pytest.mark.anyio
async def test_a_server_that_is_loading_can_be_stopped(engine: FakeEngine):
    engine.state = EngineState.STARTING
    async with serving(engine, drain_s=0) as running:
        running.stopping.set()
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


class UnstoppableEngine(FakeEngine):
    """Fails while it is stopped."""

    async def stop(self, drain_s: float = 0.0) -> None:
        self.draining.set()
        raise RuntimeError("cannot stop")


@pytest.mark.anyio
async def test_a_server_whose_engine_cannot_be_stopped_ends_all_the_same(caplog):
    async with serving(UnstoppableEngine(), drain_s=0) as running:
        running.stopping.set()
        status = await running.status()

    assert status == 1
    assert "cannot stop" in caplog.text


@pytest.mark.skipif(shutil.which("openssl") is None, reason="no openssl to make a certificate with")
def test_with_a_certificate_the_server_speaks_tls(tmp_path):
    chain, key = tmp_path / "chain.pem", tmp_path / "key.pem"
    wanted = ["-nodes", "-days", "1", "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(chain)]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", *wanted]
    subprocess.run(command, check=True, capture_output=True, timeout=30)

    settings = Settings(ssl_certfile=chain, ssl_keyfile=key)
    config = http_config(create_app(settings, FakeEngine()), settings)
    config.load()

    assert config.ssl is not None
    assert config.ssl.get_ciphers()


def test_without_a_certificate_it_does_not():
    assert not http_config(create_app(Settings(), FakeEngine()), Settings()).is_ssl
