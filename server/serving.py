"""`ringserve serve`: one engine behind one listening socket, from the first signal to the exit status.

The port is bound before anything slow, and the engine process loads the model while this process loads
the HTTP application: the two take about a second each, side by side.
"""

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

import uvicorn
from starlette.types import ASGIApp

from engine import ConfigError, Engine, EngineError, resolve
from server.settings import Settings
from server.traces import require_traces

EXIT_OK, EXIT_FAILED, EXIT_MISCONFIGURED = 0, 1, 2
EXIT_SIGNALLED = 128  # plus the signal's number, as shells tell it
TICK_S, TICKS_A_SECOND = 1.0, 10  # the latter as uvicorn counts them
FLUSH_S = 5  # for slow readers, once every stream has ended

logger = logging.getLogger(__name__)


class StopSignal:
    """SIGTERM and SIGINT: the first sets `came`, the second ends the process at once.

    Until `follow` is called there is nothing to end with care, and the first one leaves by SystemExit.
    """

    def __init__(self) -> None:
        self.came = asyncio.Event()
        self._is_signalled = False
        self._loop: asyncio.AbstractEventLoop | None = None

    @classmethod
    @contextmanager
    def installed(cls) -> Iterator[Self]:
        """Takes both signals until the end of the block."""
        stop = cls()
        previous = {number: signal.signal(number, stop.take) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield stop
        finally:
            for number, handler in previous.items():
                signal.signal(number, handler)

    def take(self, number: int, _: FrameType | None) -> None:
        """Take a signal; called by the interpreter between any two instructions."""
        if self._is_signalled:
            os._exit(EXIT_SIGNALLED + number)  # the engine process reads the end of its channel, and leaves
        self._is_signalled = True
        if self._loop is None:
            logger.info("stopped before it served signal=%s", signal.Signals(number).name)
            raise SystemExit(EXIT_SIGNALLED + number)
        self._loop.call_soon_threadsafe(self.came.set)

    def follow(self, *, stops_at_eof: bool) -> None:
        """From now on tell the running event loop; also of the end of standard input, if asked to.

        Raises ConfigError where standard input is nothing to wait for.
        """
        self._loop = asyncio.get_running_loop()
        if stops_at_eof:
            try:
                self._loop.add_reader(sys.stdin.fileno(), self._read_stdin)
            except (OSError, ValueError) as error:
                raise ConfigError("--stop-at-eof needs a pipe as standard input") from error

    def _read_stdin(self) -> None:
        assert self._loop is not None
        if not os.read(sys.stdin.fileno(), 1 << 16):
            self._loop.remove_reader(sys.stdin.fileno())
            self.came.set()


class DrainingServer(uvicorn.Server):
    """A server that first drains the engine, when `stop` came.

    While it drains, the port still answers: 503 to new work. It also ends when the engine has failed
    for good. `exit_status` tells afterwards which of these it was.
    """

    def __init__(self, config: uvicorn.Config, engine: Engine, drain_s: float, stop: StopSignal) -> None:
        super().__init__(config)
        self.exit_status = EXIT_OK
        self._engine = engine
        self._drain_s = drain_s
        self._stop = stop
        self._leaving = asyncio.Event()

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
        """Leave the signals to `stop`."""
        yield

    async def serve_until_done(self, listener: socket.socket) -> int:
        """Serve on `listener`, and tell the exit status."""
        watches = (
            self._announce(url_of(listener, has_tls=self.config.is_ssl)),
            self._watch_engine(),
            self._drain(),
        )
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
        await self._stop.came.wait()
        logger.info("stopping drain_s=%.1f (a second signal exits at once)", self._drain_s)
        try:
            await self._engine.stop(self._drain_s)
        finally:
            self._leave()

    def _leave(self) -> None:
        self.should_exit = True
        self._leaving.set()


def serve(settings: Settings) -> int:
    """Serve until told to stop, and return the exit status.

    Raises ConfigError where the model or a setting cannot work, OSError where the address is taken.
    """
    if settings.otlp_endpoint is not None:
        require_traces(settings.otlp_endpoint)
    with StopSignal.installed() as stop, bind(settings.host, settings.port) as listener:
        source = resolve(settings.model, cache_dir=settings.cache_dir)
        return serve_engine(settings, Engine(settings.to_engine_config(source)), listener, stop)


def serve_engine(settings: Settings, engine: Engine, listener: socket.socket, stop: StopSignal) -> int:
    """Start `engine`, serve it on the bound socket `listener`, and return the exit status."""
    listener.listen()
    return asyncio.run(_serve(settings, engine, listener, stop))


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
            _notice_lost_peers(listener)
            listener.bind(address)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise OSError(error.errno, f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def _notice_lost_peers(listener: socket.socket) -> None:
    """Let the kernel find out, within two minutes, that a peer is gone without a word; connections inherit this."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if sys.platform == "linux":
        for option, value in ((socket.TCP_KEEPIDLE, 60), (socket.TCP_KEEPINTVL, 15), (socket.TCP_KEEPCNT, 4)):
            listener.setsockopt(socket.IPPROTO_TCP, option, value)


def url_of(listener: socket.socket, *, has_tls: bool) -> str:
    """Where a bound socket is reached."""
    host, port = listener.getsockname()[:2]
    scheme = "https" if has_tls else "http"
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


async def _serve(settings: Settings, engine: Engine, listener: socket.socket, stop: StopSignal) -> int:
    stop.follow(stops_at_eof=settings.stop_at_eof)
    logger.info("listening address=%s", url_of(listener, has_tls=settings.ssl_certfile is not None))
    await engine.start()
    create_app = await asyncio.to_thread(_load_app)  # slow to import; the engine process starts meanwhile
    from sse_starlette.sse import AppStatus  # noqa: PLC0415  loaded by now

    AppStatus.enable_automatic_graceful_drain = False  # the engine ends the streams, each with its last event
    logging.getLogger("uvicorn").setLevel(max(logging.WARNING, logging.getLogger().level))
    config = http_config(create_app(settings, engine, is_started=True), settings)
    gc.collect()
    gc.freeze()  # what start-up made stays; later collections need not look at it
    return await DrainingServer(config, engine, settings.drain_s, stop).serve_until_done(listener)


def _load_app() -> Callable[..., ASGIApp]:
    """Imports the application. What is loaded is no garbage, and to look for some takes half as long again."""
    gc.disable()
    try:
        from server.app import create_app  # noqa: PLC0415  as said where it is called
    finally:
        gc.freeze()
        gc.enable()
    return create_app


def http_config(app: ASGIApp, settings: Settings) -> uvicorn.Config:
    """How `app` is served: bounded connections, TLS where there is a certificate, and a log of our own."""
    from server.connection import MAX_HEAD_BYTES, bounded  # noqa: PLC0415  as heavy as the application

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
