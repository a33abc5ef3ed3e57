"""What every request passes before it reaches a route, as plain ASGI: id, key, size.

Plain, because wrapping middlewares hide from a route that its client has gone. From the outside in:
`UnderRoot`, `RequestId`, `RequireKey`, `LimitBody`. None of them knows a route.
"""

import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence

from fastapi import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.errors import Refusal, refuse, unexpected
from server.keys import Keyring
from server.keys import Scope as KeyScope
from server.metrics.http import HttpTally
from server.observation import Answered, Observer, log_line

REQUEST_ID = "request_id"
NUMBER = "number"
CALLER = "caller"
OPEN_PATHS = frozenset({"/health", "/ready"})
METRICS_PATH = "/metrics"
TRACE_HEADERS = ("traceparent", "tracestate")
STREAMS = "streams"
"""Where a route leaves what it reads its answer from, for the records of how that went."""
_SANE_ID = re.compile(rb"[\x21-\x7e]{1,128}")

logger = logging.getLogger(__name__)


class UnderRoot:
    """Tells all behind it under which path a proxy shows the server, whether or not the proxy cuts it off."""

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        if self._root_path and scope["type"] == "http":
            scope["root_path"] = self._root_path
        await self._app(scope, receive, send)


class RequestId:
    """Gives each request an id, its answer the `x-request-id` header, and its observers word of its end.

    A client's own id is kept if it is short and printable. The number in our ids is in the answer's id
    too, so all lines about one request share it. What no handler caught ends here: as a
    500 that reveals nothing, or, when the answer had begun, as a broken connection.
    """

    def __init__(
        self,
        app: ASGIApp,
        http: HttpTally,
        observers: Sequence[Observer] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._app = app
        self._http = http
        self._observers = (_log, http.observe, *observers)
        self._clock = clock

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request, or pass on what is not HTTP."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = self._clock()
        number = uuid.uuid4().hex
        request_id = _own_id(scope) or f"req_{number}"
        scope.setdefault("state", {}).update({REQUEST_ID: request_id, NUMBER: number})
        self._http.num_under_way += 1
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception:  # the top of a request
            logger.exception(
                "request failed id=%s method=%s path=%r", request_id, scope["method"], scope["path"]
            )
            if status:
                raise
            await unexpected(request_id).to_response()(scope, receive, send_with_id)
        finally:
            self._http.num_under_way -= 1
            answered = _answered(scope, status, started_s, self._clock())
            self._tell(answered)

    def _tell(self, answered: Answered) -> None:
        """Let each observer know; a fault of one is its own, and the request has been answered."""
        for observe in self._observers:
            try:
                observe(answered)
            except Exception:  # the top of an observer
                logger.exception("request not observed id=%s", answered.request_id)


class RequireKey:
    """Refuses requests without a key that opens their path; no keys at all: no refusal."""

    def __init__(self, app: ASGIApp, keyring: Keyring) -> None:
        self._app = app
        self._keyring = keyring

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, with its caller's name in its state, or answer 401 or 403."""
        if scope["type"] != "http" or not self._keyring or _local_path(scope) in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        caller = self._caller(_header(scope, b"authorization"), scope_of(_local_path(scope)))
        if isinstance(caller, Refusal):
            await caller.to_response()(scope, receive, send)
            return
        scope["state"][CALLER] = caller
        await self._app(scope, receive, send)

    def _caller(self, authorization: bytes | None, needed: KeyScope) -> str | Refusal:
        scheme, _, key = (authorization or b"").partition(b" ")
        if scheme.lower() != b"bearer" or not key.strip():
            return _unauthorized("No API key was sent; send the header 'Authorization: Bearer KEY'")
        known = self._keyring.find(key.strip())
        if known is None:
            return _unauthorized("The API key is not accepted here")
        if not known.opens(needed):
            message = f"The API key does not have the scope '{needed}', which this path needs"
            return refuse(403, message, code="insufficient_scope")
        return known.name


class LimitBody:
    """Refuses bodies above `max_body_bytes`: by their announced length, and while they are read."""

    def __init__(self, app: ASGIApp, max_body_bytes: int) -> None:
        self._app = app
        self._max_body_bytes = max_body_bytes
        self._message = f"The body is larger than {max_body_bytes} bytes, the most that this server reads"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with a `receive` that counts."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        announced = _header(scope, b"content-length")
        if announced is not None and announced.isdigit() and int(announced) > self._max_body_bytes:
            refusal = refuse(413, self._message, code="body_too_large")
            await refusal.to_response()(scope, receive, send)
            return
        num_bytes = 0

        async def receive_counted() -> Message:
            nonlocal num_bytes
            message = await receive()
            num_bytes += len(message.get("body", b""))
            if num_bytes > self._max_body_bytes:
                raise HTTPException(413, self._message)
            return message

        await self._app(scope, receive_counted, send)


def scope_of(path: str) -> KeyScope:
    """What a key must open to be let through to `path`, whether or not there is such a path."""
    if path == METRICS_PATH or path.startswith(f"{METRICS_PATH}/"):
        return KeyScope.METRICS
    is_admin = path.startswith("/admin") or path == "/stats" or path.startswith("/stats/")
    return KeyScope.ADMIN if is_admin else KeyScope.INFERENCE


def _local_path(scope: Scope) -> str:
    """The path as routes know it: below where a proxy shows the server."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    return path[len(root) :] if root and path.startswith(f"{root}/") else path


def _unauthorized(message: str) -> Refusal:
    return refuse(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _header(scope: Scope, name: bytes) -> bytes | None:
    return next((value for key, value in scope["headers"] if key == name), None)


def _own_id(scope: Scope) -> str | None:
    """The id that the client chose for its request, if it can be kept."""
    sent = _header(scope, b"x-request-id")
    return sent.decode("ascii") if sent is not None and _SANE_ID.fullmatch(sent) else None


def _answered(scope: Scope, status: int, started_s: float, ended_s: float) -> Answered:
    """What is known of a request, once its answer is sent or given up."""
    streams, route = scope["state"].get(STREAMS), scope.get("route")
    sent = ((name, _header(scope, name.encode())) for name in TRACE_HEADERS)
    return Answered(
        request_id=scope["state"][REQUEST_ID],
        number=scope["state"][NUMBER],
        method=scope["method"],
        path=_local_path(scope),
        route=None if route is None else route.path,
        status=status,
        started_s=started_s,
        ended_s=ended_s,
        records=() if streams is None else streams.records,
        trace_headers={name: value.decode("latin-1") for name, value in sent if value is not None},
    )


def _log(answered: Answered) -> None:
    """The line of one request; quiet for probes and scrapes, which come by themselves."""
    log_line(answered, is_quiet=answered.path in OPEN_PATHS | {METRICS_PATH})
