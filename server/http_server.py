"""`DrainingServer`: the HTTP application behind uvicorn, which drains the engine before it goes.

It is loaded while the engine process starts. It knows neither signals nor how the process came about.
"""

import asyncio
import contextlib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Self

import uvicorn
from sse_starlette.sse import AppStatus
from starlette.types import ASGIApp

from engine import ConfigError, Engine, EngineError
from server.app import create_app
from server.connection import MAX_HEAD_BYTES, bounded
from server.settings import Settings

EXIT_OK, EXIT_FAILED, EXIT_MISCONFIGURED = 0, 1, 2
TICK_S, TICKS_A_SECOND = 1.0, 10  # the latter as uvicorn counts them
FLUSH_S = 5  # for slow readers, once every stream has ended

logger = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A server that first drains the engine, once `stopping` is set.

    While it drains, the port still answers: 503 to new work. It also ends when the engine has failed
    for good. `exit_status` tells afterwards which of these it was.
    """

    def __init__(
        self, config: uvicorn.Config, engine: Engine, drain_s: float, stopping: asyncio.Event
    ) -> None:
        super().__init__(config)
        self.exit_status = EXIT_OK
        self._engine = engine
        self._drain_s = drain_s
        self._stopping = stopping
        self._leaving = asyncio.Event()

    @classmethod
    def of(cls, settings: Settings, engine: Engine, stopping: asyncio.Event) -> Self:
        """The server of the application around `engine`, which was started."""
        # The engine ends the streams, each with its last event.
        AppStatus.enable_automatic_graceful_drain = False
        logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
        config = http_config(create_app(settings, engine, is_started=True), settings)
        return cls(config, engine, settings.drain_s, stopping)

    async def main_loop(self) -> None:
        """Until it is to exit: one tick a second, for the date in answers' headers.

        uvicorn's own looks ten times a second whether to exit, which is what an idle server then spends.
        """
        ticks = 0
        while not await self.on_tick(ticks):
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leaving.wait(), TICK_S)
            ticks += TICKS_A_SECOND

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to who sets `stopping`."""
        yield

    async def serve_until_done(self, listener: socket.socket, url: str) -> int:
        """Serve on `listener`, which is reached at `url`, and tell the exit status."""
        watches = (self._announce(url), self._watch_engine(), self._drain())
        watchers = [asyncio.create_task(watch) for watch in watches]
        try:
            await self.serve(sockets=[listener])
        finally:
            for watcher in watchers:
                watcher.cancel()
            for outcome in await asyncio.gather(*watchers, return_exceptions=True):
                if isinstance(outcome, Exception):
                    logger.error("watching the engine failed", exc_info=outcome)
                    self.exit_status = EXIT_FAILED
        return self.exit_status

    async def _announce(self, url: str) -> None:
        try:
            await self._engine.wait_ready()
        except EngineError:
            return  # told by the watcher below
        logger.info("ready model=%s address=%s", self._engine.model_id, url)

    async def _watch_engine(self) -> None:
        error = await self._engine.wait_failed()
        logger.error("engine failed for good error=%s message=%r", type(error).__name__, error.message)
        self.exit_status = EXIT_MISCONFIGURED if isinstance(error, ConfigError) else EXIT_FAILED
        self._leave()

    async def _drain(self) -> None:
        await self._stopping.wait()
        logger.info("stopping drain_s=%.1f (a second signal exits at once)", self._drain_s)
        try:
            await self._engine.stop(self._drain_s)
        finally:
            self._leave()

    def _leave(self) -> None:
        self.should_exit = True
        self._leaving.set()


def http_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How `app` is served: bounded connections, TLS where there is a certificate, and a log of our own."""
    return uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FLUSH_S,
        lifespan="on",
        http=bounded(settings.client_timeout_s),
        h11_max_incomplete_event_size=MAX_HEAD_BYTES,
        ssl_certfile=settings.ssl_certfile,
        ssl_keyfile=settings.ssl_keyfile,
    )
