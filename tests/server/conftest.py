"""Fixtures of the server's tests: a scripted engine, an in-process client, a live server."""

from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import pytest

from server.app import create_app
from server.settings import Settings
from tests.support.fake_engine import FakeEngine
from tests.support.live_server import LiveServer, live_server


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def client_for(engine: FakeEngine) -> Callable[..., httpx.AsyncClient]:
    """Makes an in-process client of an app with the settings given."""

    def make(**settings: object) -> httpx.AsyncClient:
        app = create_app(Settings(**settings), engine, clock=lambda: 1_700_000_000.5)
        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")

    return make


@pytest.fixture
async def client(client_for: Callable[..., httpx.AsyncClient]) -> AsyncIterator[httpx.AsyncClient]:
    async with client_for() as client:
        yield client


@pytest.fixture
def live() -> Iterator[LiveServer]:
    with live_server(FakeEngine) as server:
        yield server
