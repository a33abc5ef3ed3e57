"""A real uvicorn on a free loopback port, in a thread: for what streams, disconnects or overloads."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager

import uvicorn

from server.app import create_app
from server.http_server import http_config
from server.settings import Settings

START_TIMEOUT_S = 20


class LiveServer:
    """A server under way; `url` is its address and `engine` what it serves."""

    def __init__(self, server: uvicorn.Server, engine: object, loop: asyncio.AbstractEventLoop) -> None:
        self.engine = engine
        self._loop = loop
        port = server.servers[0].sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"

    def submit(self, coroutine: Coroutine[object, object, object]) -> None:
        """Run `coroutine` to its end on the server's event loop."""
        asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(START_TIMEOUT_S)

    def wait(self, event: asyncio.Event) -> None:
        """Wait for an event of the server's loop."""
        self.submit(asyncio.wait_for(event.wait(), START_TIMEOUT_S))


@contextmanager
def live_server(make_engine: Callable[[], object], settings: Settings | None = None) -> Iterator[LiveServer]:
    """Serve the engine that `make_engine` makes, on the server's own event loop."""
    started = threading.Event()
    found: list[tuple[uvicorn.Server, LiveServer]] = []

    class Announcing(uvicorn.Server):
        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            found.append((self, LiveServer(self, engine, asyncio.get_running_loop())))
            started.set()

    engine = make_engine()
    settings = settings or Settings()
    config = http_config(create_app(settings, engine), settings)
    config.port = 0
    thread = threading.Thread(target=Announcing(config).run, daemon=True)
    thread.start()
    assert started.wait(START_TIMEOUT_S)
    server, live = found[0]
    try:
        yield live
    finally:
        server.should_exit = True
        thread.join(START_TIMEOUT_S)
        assert not thread.is_alive()
