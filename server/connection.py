"""`BoundedConnection`: one HTTP connection, which waits for its client only so long.

What stands in front of every application on a socket: a client that sends its request too slowly gets 408,
one whose head is too large 431, and one that takes nothing of its answer is cut off. It knows no route, and
how long an answer takes to be made is not its business.
"""

import asyncio
import logging
import sys

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from server.errors import refuse
from server.sse import CONNECTION

CODES = {400: "invalid_http", 408: "request_not_sent", 431: "head_too_large"}
MAX_HEAD_BYTES = 64 << 10
LINGER_S = (
    2.0  # for a client to read why it was refused; to close on what it still sends would lose the answer
)

logger = logging.getLogger(__name__)


class BoundedConnection(H11Protocol):
    """A connection whose client has `limit_s` for each request, and to take something of an answer.

    The time of a request runs from the connection's start or, on one that is kept alive, from the request's
    first byte, to the last byte of its body: a byte a second does not prolong it.
    """

    limit_s = 60.0
    _receiving: asyncio.TimerHandle | None = None
    _sending: asyncio.TimerHandle | None = None
    _num_unsent = 0
    _is_refused = False

    def __init__(
        self,
        config: uvicorn.Config,
        server_state: ServerState,
        app_state: dict[str, object],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        """As uvicorn makes it; its requests find it in their state, for `write_body`."""
        super().__init__(config, server_state, {**app_state, CONNECTION: self}, _loop)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The client's time begins."""
        assert isinstance(transport, asyncio.Transport)
        super().connection_made(transport)
        self._receiving = self.loop.call_later(self.limit_s, self._give_up_receiving)

    def data_received(self, data: bytes) -> None:
        """Take what came, and note whether the request is whole with it."""
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_refused:
            return
        is_partial = self.conn.their_state in (h11.IDLE, h11.SEND_BODY)
        if self._receiving is not None and not is_partial:
            self._receiving.cancel()
            self._receiving = None
        elif self._receiving is None and is_partial:
            self._receiving = self.loop.call_later(self.limit_s, self._give_up_receiving)

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing is waited for any more."""
        for timer in (self._receiving, self._sending):
            if timer is not None:
                timer.cancel()
        self._receiving = self._sending = None
        super().connection_lost(exc)

    def can_write_body(self) -> bool:
        """Whether the answer under way has begun, and its client has taken enough of it for more."""
        cycle = self.cycle
        return cycle.response_started and not (
            cycle.response_complete or cycle.disconnected or self.flow.write_paused
        )

    def write_body(self, body: bytes) -> None:
        """Send more of an answer at once, as `send` of the application would, if it can be written to.

        The answer's length must not have been announced. Framed here, since h11 takes ten times as long to say the
        same; only an older client gets its body as it is.
        """
        if self.conn.their_http_version != b"1.1":
            self.transport.write(self.conn.send(h11.Data(data=body)))
            return
        self.transport.write(b"%x\r\n%b\r\n" % (len(body), body))

    def pause_writing(self) -> None:
        """The client is behind: watch whether it goes on."""
        super().pause_writing()
        self._watch_sending()

    def resume_writing(self) -> None:
        """The client has caught up."""
        super().resume_writing()
        self._num_unsent = sys.maxsize

    def on_response_complete(self) -> None:
        """The last of an answer may wait for its client too, and holds the connection open until it is taken."""
        super().on_response_complete()
        self._watch_sending()

    def send_400_response(self, msg: str) -> None:
        """Answer what is no request; called while the error that says so is handled."""
        error = sys.exception()
        status = error.error_status_hint if isinstance(error, h11.RemoteProtocolError) else 400
        if status == 431:
            msg = f"The head of the request is larger than {MAX_HEAD_BYTES} bytes, the most that this server reads"
        self._refuse(status, msg)

    def _give_up_receiving(self) -> None:
        """The request's time is over. A client that has sent nothing at all is owed no answer."""
        self._receiving = None
        if self.conn.their_state is h11.IDLE and not self.conn.trailing_data[0]:
            self.transport.close()
            return
        self._refuse(
            408, f"The request was not sent within {self.limit_s:g} s, the most that this server waits"
        )

    def _refuse(self, status: int, message: str) -> None:
        """Answer instead of the application, where no answer has begun, and leave."""
        logger.info("request not read status=%d client=%s", status, self._client)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # else the application could answer what is refused here
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            content = refuse(status, message, code=CODES.get(status, CODES[400])).to_json()
            headers = [
                ("content-type", "application/json"),
                ("content-length", str(len(content))),
                ("connection", "close"),
            ]
            for event in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self._leave()

    def _leave(self) -> None:
        """Say that no more comes, and close once the client has, or after a moment."""
        self._is_refused = True
        if self._receiving is not None:
            self._receiving.cancel()
        if self.transport.can_write_eof():
            self.transport.write_eof()
            self._receiving = self.loop.call_later(LINGER_S, self.transport.close)
        else:
            self.transport.close()
        self._watch_sending()

    def _watch_sending(self) -> None:
        self._num_unsent = sys.maxsize
        if self._sending is None and self.transport.get_write_buffer_size():
            self._look_at_sending()

    def _look_at_sending(self) -> None:
        """Cut off a client that has taken nothing since the last look, and look again while something waits.

        What waits can only shrink while the application is held up or done; else nothing can be said.
        """
        self._sending = None
        num_unsent = self.transport.get_write_buffer_size()
        is_still = self.flow.write_paused or self.cycle is None or self.cycle.response_complete
        if is_still and num_unsent >= self._num_unsent:
            logger.info(
                "client cut off, it takes nothing client=%s unsent_bytes=%d", self._client, num_unsent
            )
            self.transport.abort()
        elif num_unsent:
            self._num_unsent = num_unsent if is_still else sys.maxsize
            self._sending = self.loop.call_later(self.limit_s, self._look_at_sending)

    @property
    def _client(self) -> str:
        return self.client[0] if self.client else "unknown"


def bounded(limit_s: float) -> type[BoundedConnection]:
    """Connections that wait for their clients for `limit_s` seconds."""
    return type("BoundedConnection", (BoundedConnection,), {"limit_s": limit_s})
