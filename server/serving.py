"""`ringserve serve`: one engine behind one listening socket, from the first signal to the exit status.

The port is bound before anything slow, and the engine process starts to load the model before this
process loads the HTTP application: the two take about a second each, side by side.
"""

import asyncio
import logging
import os
import signal
import socket
from types import FrameType

import uvicorn
from sse_starlette.sse import AppStatus

from engine import ConfigError, Engine, EngineError, resolve
from server.settings import Settings

EXIT_OK, EXIT_FAILED, EXIT_MISCONFIGURED = 0, 1, 2
EXIT_SIGNALLED = 128  # plus the signal's number, as shells tell it
FLUSH_S = 5  # for slow readers, once every stream has ended

logger = logging.getLogger(__name__)


class DrainingServer(uvicorn.Server):
    """A server that ends in two steps: the first signal drains the engine, the second exits at once.

    While it drains, the port still answers: 503 to new work. It also ends when the engine has failed
    for good. `exit_status` tells afterwards which of these it was.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_s: float) -> None:
        super().__init__(config)
        self.exit_status = EXIT_OK
        self._engine = engine
        self._drain_s = drain_s
        self._is_signalled = False
        self._signal = asyncio.Event()
        self._loop = asyncio.get_running_loop()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  uvicorn's signature
        """Take a signal; called by the interpreter between any two instructions."""
        if self._is_signalled:
            os._exit(EXIT_SIGNALLED + sig)  # the engine process reads the end of its channel, and leaves
        self._is_signalled = True
        self._loop.call_soon_threadsafe(self._signal.set)

    async def serve_until_done(self, listener: socket.socket) -> int:
        """Serve on `listener`, and tell the exit status."""
        watchers = [
            asyncio.create_task(watch()) for watch in (self._announce, self._watch_engine, self._drain)
        ]
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

    async def _announce(self) -> None:
        try:
            await self._engine.wait_ready()
        except EngineError:
            return  # told by the watcher below
        logger.info("ready model=%s", self._engine.model_id)

    async def _watch_engine(self) -> None:
        error = await self._engine.wait_failed()
        logger.error("engine failed for good error=%s: %s", type(error).__name__, error.message)
        self.exit_status = EXIT_MISCONFIGURED if isinstance(error, ConfigError) else EXIT_FAILED
        self.should_exit = True

    async def _drain(self) -> None:
        await self._signal.wait()
        logger.info("stopping drain_s=%.1f (a second signal exits at once)", self._drain_s)
        try:
            await self._engine.stop(self._drain_s)
        finally:
            self.should_exit = True


def serve(settings: Settings) -> int:
    """Serve until told to stop, and return the exit status.

    Raises ConfigError where the model or a setting cannot work, OSError where the address is taken.
    """
    with bind(settings.host, settings.port) as listener:
        source = resolve(settings.model, cache_dir=settings.cache_dir)
        return serve_engine(settings, Engine(settings.to_engine_config(source)), listener)


def serve_engine(settings: Settings, engine: Engine, listener: socket.socket) -> int:
    """Start `engine`, serve it on the bound socket `listener`, and return the exit status."""
    listener.listen()
    try:
        return asyncio.run(_serve(settings, engine, listener))
    except KeyboardInterrupt:
        return EXIT_SIGNALLED + signal.SIGINT


def bind(host: str, port: int) -> socket.socket:
    """A TCP socket at the address, not listening yet; of a name's several addresses the first IPv4 one.

    Raises OSError, with the address in its message.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


async def _serve(settings: Settings, engine: Engine, listener: socket.socket) -> int:
    host, port = listener.getsockname()[:2]
    logger.info("listening address=http://%s:%d", f"[{host}]" if ":" in host else host, port)
    await engine.start()
    from server.app import create_app  # noqa: PLC0415  slow to import; the engine loads meanwhile

    AppStatus.enable_automatic_graceful_drain = False  # the engine ends the streams, each with its last event
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
    app = create_app(settings, engine, is_started=True)
    config = uvicorn.Config(
        app,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=FLUSH_S,
        lifespan="on",
    )
    return await DrainingServer(config, engine, settings.drain_s).serve_until_done(listener)
