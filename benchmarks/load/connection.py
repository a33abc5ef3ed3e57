"""HTTP/1.1 to one server, as little of it as a stream of events needs. It knows nothing of what is asked.

Own, and not a library, because a client that shares the machine with the server must not take part of
it: a streamed chunk costs a few microseconds here, and tens to a hundred in a general client. Plain
`http` only, no redirects, no compression.
"""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

MAX_LINE_BYTES = 2**22
MAX_IDLE_S = 2.0


class BrokenAnswerError(Exception):
    """The server ended an answer early, or sent what is not HTTP."""


@dataclass(slots=True)
class Connection:
    """One open connection and when it was last used."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    used_s: float

    def is_usable(self) -> bool:
        """Neither closed nor idle for so long that the server may be about to close it."""
        is_open = not (self.reader.at_eof() or self.writer.is_closing())
        return is_open and time.monotonic() - self.used_s < MAX_IDLE_S


@dataclass(frozen=True, slots=True)
class Head:
    """The status and headers of an answer; names are lower case."""

    status: int
    headers: Mapping[str, str]


@dataclass(slots=True)
class Host:
    """One server, and the connections to it that are open and idle."""

    url: str
    api_key: str | None = None
    _idle: list[Connection] = field(default_factory=list)

    async def get_json(self, path: str) -> object:
        """The parsed body of a GET."""
        return (await self.whole("GET", path, b""))[1]

    async def whole(self, method: str, path: str, body: bytes) -> tuple[int, object]:
        """Status and parsed body; a body that is not JSON is given as text."""
        pieces = []
        status = 0
        async for status, piece in self.pieces(method, path, body):  # noqa: B007  the last one counts
            pieces.append(piece)
        text = b"".join(pieces)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text.decode("utf-8", "replace")

    async def pieces(self, method: str, path: str, body: bytes) -> AsyncGenerator[tuple[int, bytes]]:
        """The status with each piece of the body as it arrives; at least one, which may be empty."""
        connection = await self._connect()
        is_whole = False
        try:
            connection.writer.write(self._request_head(method, path, len(body)) + body)
            head = await _read_head(connection.reader)
            yield head.status, b""
            async for piece in _read_body(connection.reader, head):
                yield head.status, piece
            is_whole = head.headers.get("connection", "").lower() != "close" and _has_end(head)
        finally:
            if is_whole:
                connection.used_s = time.monotonic()
                self._idle.append(connection)
            else:
                connection.writer.close()

    async def close(self) -> None:
        """Close what is open."""
        while self._idle:
            connection = self._idle.pop()
            connection.writer.close()
            try:
                await connection.writer.wait_closed()
            except OSError:
                continue  # the server was faster

    async def _connect(self) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if connection.is_usable():
                return connection
            connection.writer.close()
        parts = urlsplit(self.url)
        if parts.scheme != "http":
            raise ValueError(f"{self.url} is not a plain http address")
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port or 80, limit=MAX_LINE_BYTES)
        return Connection(reader, writer, time.monotonic())

    def _request_head(self, method: str, path: str, num_bytes: int) -> bytes:
        parts = urlsplit(self.url)
        lines = [
            f"{method} {parts.path.rstrip('/')}{path} HTTP/1.1",
            f"Host: {parts.netloc}",
            "Content-Type: application/json",
            "Accept: */*",
            f"Content-Length: {num_bytes}",
        ]
        if self.api_key is not None:
            lines.append(f"Authorization: Bearer {self.api_key}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _read_head(reader: asyncio.StreamReader) -> Head:
    try:
        block = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        raise BrokenAnswerError("closed before an answer") from error
    first, *lines = block.decode("latin-1").split("\r\n")
    words = first.split(" ", 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or not words[1].isdecimal():
        raise BrokenAnswerError(f"{first!r} is no status line")
    pairs = (line.partition(":") for line in lines if line)
    return Head(int(words[1]), {name.strip().lower(): value.strip() for name, _, value in pairs})


def _has_end(head: Head) -> bool:
    """Whether the body says where it ends; if not, it ends with the connection."""
    return "content-length" in head.headers or _is_chunked(head)


def _is_chunked(head: Head) -> bool:
    return head.headers.get("transfer-encoding", "").lower() == "chunked"


async def _read_body(reader: asyncio.StreamReader, head: Head) -> AsyncIterator[bytes]:
    try:
        if _is_chunked(head):
            while size := int((await reader.readuntil(b"\r\n")).split(b";")[0], 16):
                yield (await reader.readexactly(size + 2))[:-2]
            while await reader.readuntil(b"\r\n") != b"\r\n":
                pass  # trailers
        elif "content-length" in head.headers:
            yield await reader.readexactly(int(head.headers["content-length"]))
        else:
            while piece := await reader.read(2**16):
                yield piece
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise BrokenAnswerError("ended in the middle of an answer") from error
