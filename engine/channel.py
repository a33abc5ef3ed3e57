"""The channel between server and engine: messages as frames on a private socket pair.

A frame is the length of its payload (8 bytes, big-endian) and the payload: one message, pickled.
That is safe because both ends are ours and nobody else holds one. The server process has an
`AsyncEnd`, the engine process a `BlockingEnd`. This module does not know what the messages mean.
"""

import asyncio
import contextlib
import pickle
import socket
from collections.abc import Callable, Iterable
from typing import Any, Self, SupportsIndex

from engine.messages import ToEngine, ToServer, from_plain, to_plain

MAX_FRAME_BYTES = 64 << 20  # a prompt of ten million tokens fits; a length above it is not a length
HEADER_BYTES = 8
READ_AHEAD_BYTES = 1 << 20  # what the server buffers before the engine's writes have to wait
_PICKLE_PROTOCOL = 5
_UNPICKLING_ERRORS = (
    pickle.UnpicklingError, EOFError, AttributeError, ImportError, LookupError, TypeError, ValueError,
)  # fmt: skip


class ChannelError(Exception):
    """A frame that cannot be one: the two ends have lost each other, and the channel is of no more use."""


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets: one for the server's end, one for the engine process to inherit."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def to_frame(message: ToEngine | ToServer) -> bytes:
    """The frame of one message; ChannelError if it is too large."""
    payload = pickle.dumps(to_plain(message), _PICKLE_PROTOCOL)
    return _checked(len(payload)).to_bytes(HEADER_BYTES, "big") + payload


Take = Callable[[Any], bool]  # Any: a message; False means that no more are wanted


class FrameReader(asyncio.StreamReader):
    """A stream reader that passes on whole frames: to `taker` while there is one, else to who reads the stream.

    A taker is called from the event loop itself. A message of every step would otherwise wake a task, which
    takes the loop once more round for each.
    """

    def __init__(self) -> None:
        super().__init__(limit=READ_AHEAD_BYTES)
        self.num_unread = 0
        self._partial = bytearray()
        self._take: Take | None = None
        self._ended: asyncio.Future[None] | None = None

    async def forward(self, take: Take) -> None:
        """Give `take` the messages to come, until the end or until it wants no more; raises what it raises."""
        self._ended = asyncio.get_running_loop().create_future()
        self._take = take
        if self.at_eof() or self.exception() is not None:
            self._finish(self.exception())
        try:
            await self._ended
        finally:
            self._take = None

    def feed_data(self, data: Iterable[SupportsIndex]) -> None:
        """Bytes have come: nearly always one whole frame."""
        arrived: bytes | bytearray = bytes(data)
        if self._partial:
            self._partial += arrived
            arrived = self._partial
        start, end = 0, len(arrived)
        while end - start >= HEADER_BYTES:
            payload_start = start + HEADER_BYTES
            num_bytes = int.from_bytes(arrived[start:payload_start], "big")
            if num_bytes > MAX_FRAME_BYTES:
                self.set_exception(_too_large(num_bytes))
                return
            stop = payload_start + num_bytes
            if stop > end:
                break
            if self._take is None:
                self.num_unread += 1
                super().feed_data(arrived[start:stop])
            else:
                self._hand_over(arrived[payload_start:stop])
            start = stop
        if arrived is self._partial:
            del self._partial[:start]
        elif start < end:
            self._partial += arrived[start:]

    def feed_eof(self) -> None:
        """No more will come."""
        super().feed_eof()
        self._finish(None)

    def set_exception(self, exc: Exception) -> None:
        """No more can be read."""
        super().set_exception(exc)
        self._finish(exc)

    def _hand_over(self, payload: bytes | bytearray) -> None:
        assert self._take is not None
        try:
            if not self._take(_unpickled(payload)):
                self._finish(None)
        except Exception as error:  # noqa: BLE001  the top of a callback: `forward` raises it
            self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        self._take = None
        if self._ended is None or self._ended.done():
            return
        if error is None or isinstance(error, ConnectionError):
            self._ended.set_result(None)
        else:
            self._ended.set_exception(error)


class AsyncEnd:
    """The server's end: used by one event loop, which alone may call its methods."""

    def __init__(self, reader: FrameReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, sock: socket.socket) -> Self:
        """Take over `sock`, which is closed with this end."""
        loop, reader = asyncio.get_running_loop(), FrameReader()
        protocol = asyncio.StreamReaderProtocol(reader, loop=loop)
        transport, _ = await loop.create_unix_connection(lambda: protocol, sock=sock)
        return cls(reader, asyncio.StreamWriter(transport, protocol, reader, loop))

    def post(self, message: ToEngine) -> None:
        """Queue `message` without waiting: the number of messages is bounded by what is open.

        Posted and sent messages leave in the order of the calls. After the end of the channel the
        message is dropped: whoever waits for its effect learns of the end by reading.
        """
        if not self._writer.is_closing():
            self._writer.write(to_frame(message))

    async def send(self, message: ToEngine) -> None:
        """Queue `message`, then wait until the other end has taken enough of what is queued."""
        self.post(message)
        with contextlib.suppress(ConnectionError):  # as in `post`: the reader tells of the end
            await self._writer.drain()

    async def receive(self) -> ToServer | None:
        """The next message; None when the other end is closed, be it in the middle of a frame.

        ChannelError if what came is not a message. For one task at a time.
        """
        try:
            header = await self._reader.readexactly(HEADER_BYTES)
            payload = await self._reader.readexactly(_checked(int.from_bytes(header, "big")))
        except (asyncio.IncompleteReadError, ConnectionError):
            return None
        self._reader.num_unread -= 1
        message: ToServer = _unpickled(payload)
        return message

    async def forward(self, take: Callable[[ToServer], bool]) -> None:
        """Call `take` with each message as it arrives, until the other end is closed or `take` says False.

        ChannelError as in `receive`, and whatever `take` raises. For one task at a time.
        """
        while self._reader.num_unread:
            message = await self.receive()
            if message is None or not take(message):
                return
        await self._reader.forward(take)

    def abort(self) -> None:
        """Begin what `close` does, without waiting for it."""
        self._writer.transport.abort()

    async def close(self) -> None:
        """Close this end at once, dropping what is still queued: the other end may never read it.

        May be called twice.
        """
        self.abort()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


class BlockingEnd:
    """The engine's end: one thread may receive while another sends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def offer(self, frame: bytes) -> int:
        """Write as much of a frame as goes without waiting, and tell how much; OSError once the server is gone."""
        try:
            return self._sock.send(frame, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def write(self, frame: bytes) -> None:
        """Write a frame or what is left of one, and wait while the server is slow to read; OSError as above."""
        self._sock.sendall(frame)

    def send(self, message: ToServer) -> None:
        """Write `message`, as `write`."""
        self.write(to_frame(message))

    def receive(self) -> ToEngine | None:
        """Wait for the next message; None when either end is closed, be it in the middle of a frame.

        ChannelError if what came is not a message.
        """
        header = self._read(HEADER_BYTES)
        if header is None:
            return None
        payload = self._read(_checked(int.from_bytes(header, "big")))
        if payload is None:
            return None
        message: ToEngine = _unpickled(payload)
        return message

    def close(self) -> None:
        """Close this end, waking a thread that waits in `receive` or `send`. May be called twice."""
        with contextlib.suppress(OSError):  # already closed, here or there
            self._sock.shutdown(socket.SHUT_RDWR)
        self._sock.close()

    def _read(self, num_bytes: int) -> bytearray | None:
        buffer = bytearray(num_bytes)
        view = memoryview(buffer)
        while view:
            try:
                num_read = self._sock.recv_into(view)
            except OSError:
                return None
            if num_read == 0:
                return None
            view = view[num_read:]
        return buffer


def _checked(num_bytes: int) -> int:
    if num_bytes > MAX_FRAME_BYTES:
        raise _too_large(num_bytes)
    return num_bytes


def _too_large(num_bytes: int) -> ChannelError:
    return ChannelError(f"a frame of {num_bytes} bytes was refused; the most is {MAX_FRAME_BYTES}")


def _unpickled(
    payload: bytes | bytearray | memoryview,
) -> Any:  # Any: the direction is known to the caller only
    try:
        return from_plain(pickle.loads(payload))
    except _UNPICKLING_ERRORS as error:
        raise ChannelError(f"a frame of {len(payload)} bytes holds no message: {error}") from error
