"""Token streams as server-sent events: chunks, then usage, then [DONE]; or, last, an error.

While nothing is generated, comments keep proxies from closing the connection. When the client goes,
or the answer ends in any other way, the streams are closed: that aborts what still runs. This module
does not know what is in a chunk.
"""

import logging
from collections.abc import AsyncIterator
from typing import Protocol

from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.types import Message, Receive, Scope, Send

from engine import EngineError, TokenEvent
from server.errors import from_engine_error, unexpected
from server.streams import MergedStreams

DONE = b"data: [DONE]\n\n"
PING_INTERVAL_S = 15

logger = logging.getLogger(__name__)


class Chunks(Protocol):
    """Renders the events of one answer as server-sent events."""

    def add(self, prompt_index: int, event: TokenEvent) -> bytes:
        """The events on the wire that one token event makes; possibly none."""

    def end(self) -> bytes:
        """What comes after the last token; possibly nothing."""


class TokenEventResponse(EventSourceResponse):
    """A streamed answer, which closes its streams however it ends, even before its first event."""

    def __init__(
        self, streams: MergedStreams, chunks: Chunks, request_id: str, *, ping_s: float = PING_INTERVAL_S
    ) -> None:
        self._streams = streams
        super().__init__(
            _events(streams, chunks, request_id), ping=ping_s, sep="\n", ping_message_factory=_ping
        )

    async def _send_with_timeout(self, send: Send, message: Message) -> None:
        """Send without the scope that would end a slow send: it costs as much as the sending of a token, and
        there is no such limit here, since the connection itself cuts off a client that takes nothing.
        """
        await send(message)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer until it ends or its client goes."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._streams.aclose()


async def _events(streams: MergedStreams, chunks: Chunks, request_id: str) -> AsyncIterator[bytes]:
    try:
        while arrived := await streams.ready():
            if written := b"".join(chunks.add(index, event) for index, event in arrived):
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


def _last_event(body: bytes) -> bytes:
    return b"data: " + body + b"\n\n"


def _ping() -> ServerSentEvent:
    return ServerSentEvent(comment="ping", sep="\n")
