"""`ringserve serve`: one engine behind one listening socket, from the first signal to the exit status.

The port is bound before anything slow, and the engine process loads the model while this process loads
the HTTP application: the two take about a second each, side by side.
"""

import asyncio
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Self

from engine import ConfigError, Engine, resolve
from server.settings import Settings
from server.traces import require_traces

if TYPE_CHECKING:
    from server.http_server import DrainingServer

EXIT_SIGNALLED = 128  # plus the signal's number, as shells tell it

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
    url = url_of(listener, has_tls=settings.ssl_certfile is not None)
    logger.info("listening address=%s", url)
    await engine.start()
    # Slow to import; the engine process starts meanwhile.
    draining_server = await asyncio.to_thread(_load_server)
    server = draining_server.of(settings, engine, stop.came)
    gc.collect()
    gc.freeze()  # what start-up made stays; later collections need not look at it
    return await server.serve_until_done(listener, url)


def _load_server() -> "type[DrainingServer]":
    """Imports the application. What is loaded is no garbage, and to look for some takes half as long again."""
    gc.disable()
    try:
        from server.http_server import DrainingServer  # noqa: PLC0415  as said where it is called
    finally:
        gc.freeze()
        gc.enable()
    return DrainingServer
