"""Token streams as server-sent events: chunks, then usage, then [DONE]; or, last, an error.

While nothing is generated, comments keep proxies from closing the connection. When the client goes,
or the answer ends in any other way, the streams are closed: that aborts what still runs. This module
does not know what is in a chunk.
"""

import logging
from collections.abc import AsyncIterator
from functools import partial
from typing import Protocol

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Receive, Scope, Send

from engine import EngineError, TokenEvent
from server.errors import from_engine_error, unexpected
from server.streams import Arrived, MergedStreams

DONE = b"data: [DONE]\n\n"
PING_INTERVAL_S = 15
CONNECTION = "connection"
"""Where a server whose connections can be written to at once leaves them, in the state of its requests."""

logger = logging.getLogger(__name__)


class Chunks(Protocol):
    """Renders the events of one answer as server-sent events."""

    def add(self, prompt_index: int, event: TokenEvent) -> bytes:
        """The events on the wire that one token event makes; possibly none."""

    def end(self) -> bytes:
        """What comes after the last token; possibly nothing."""


class Connection(Protocol):
    """What a client is sent its answer over, as far as it can be written to without waiting."""

    def can_write_body(self) -> bool:
        """Whether the answer under way has begun, and its client has taken enough of it for more."""

    def write_body(self, body: bytes) -> None:
        """Send more of the body, of which no length was announced."""


class TokenEventResponse(EventSourceResponse):
    """A streamed answer, which closes its streams however it ends, even before its first event.

    Chunks are written to the connection where their tokens arrive, if it is one that allows that: to wake the task of
    the response for each, and to send through all that stands around it, takes several times as long as
    to render them. The task sends what comes while the client is behind, and the last events.
    """

    def __init__(
        self, streams: MergedStreams, chunks: Chunks, request_id: str, *, ping_s: float = PING_INTERVAL_S
    ) -> None:
        self._streams = streams
        self._chunks = chunks
        super().__init__(
            _events(streams, chunks, request_id), ping=ping_s, sep="\n", ping_message_factory=_ping
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer until it ends or its client goes."""
        connection = scope.get("state", {}).get(CONNECTION)
        if connection is not None:
            self._streams.pour(partial(_write, self._chunks, connection), can_take=connection.can_write_body)
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._streams.aclose()


async def _events(streams: MergedStreams, chunks: Chunks, request_id: str) -> AsyncIterator[bytes]:
    try:
        while arrived := await streams.ready():
            if written := _rendered(chunks, arrived):
                yield written
        yield chunks.end() + DONE
    except EngineError as error:
        logger.warning(
            "stream failed id=%s error=%s message=%r", request_id, type(error).__name__, error.message
        )
        yield _last_event(from_engine_error(error).to_json())
    except Exception:
        logger.exception("stream failed id=%s", request_id)
        yield _last_event(unexpected(request_id).to_json())


def _write(chunks: Chunks, connection: Connection, arrived: Arrived) -> None:
    if written := _rendered(chunks, arrived):
        connection.write_body(written)


def _rendered(chunks: Chunks, arrived: Arrived) -> bytes:
    if len(arrived) == 1:  # nearly always
        return chunks.add(*arrived[0])
    return b"".join([chunks.add(index, event) for index, event in arrived])


def _last_event(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")
