"""Errors as HTTP answers: the only place that knows status codes.

An error of the engine, of validation or of routing becomes a `Refusal`: a status, OpenAI's error
body and headers. The same body travels as the last event of a stream that had begun already.
"""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from fastapi import Response
from starlette.exceptions import HTTPException

from engine import (
    ContextLengthError,
    DeadlineError,
    EngineCrashedError,
    EngineError,
    EngineUnavailableError,
    OverloadedError,
    RateLimitedError,
    RequestError,
    RetryableError,
    StepError,
    UnknownModelError,
)
from server.schemas.common import UNSUPPORTED_PARAMETER, ErrorBody, ErrorEnvelope

INVALID_REQUEST = "invalid_request_error"
SERVER_ERROR = "server_error"
MAX_SHOWN_CHARS = 60

# Most particular class first. Status, type, code.
_ENGINE_ERRORS: tuple[tuple[type[EngineError], int, str, str | None], ...] = (
    (ContextLengthError, 400, INVALID_REQUEST, "context_length_exceeded"),
    (UnknownModelError, 404, INVALID_REQUEST, "model_not_found"),
    (RequestError, 400, INVALID_REQUEST, "invalid_value"),
    (OverloadedError, 503, SERVER_ERROR, "overloaded"),
    (EngineUnavailableError, 503, SERVER_ERROR, "engine_unavailable"),
    (RateLimitedError, 429, "rate_limit_error", "rate_limit_exceeded"),
    (DeadlineError, 504, SERVER_ERROR, "request_timeout"),
    (StepError, 500, SERVER_ERROR, "step_failed"),
    (EngineCrashedError, 500, SERVER_ERROR, "engine_crashed"),
    (EngineError, 500, SERVER_ERROR, "internal_error"),
)

_HTTP_ERRORS: dict[int, tuple[str, str | None]] = {
    400: ("The body cannot be read as JSON", "invalid_json"),
    404: ("Unknown path: {method} {path}", "unknown_url"),
    405: ("{path} does not answer {method}; the Allow header says what it answers", "method_not_allowed"),
    413: ("{detail}", "body_too_large"),
}

_VALIDATION_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_parameter",
    UNSUPPORTED_PARAMETER: UNSUPPORTED_PARAMETER,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """An answer that is not a success."""

    status: int
    body: ErrorBody
    headers: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> bytes:
        """The error envelope, in ASCII: what a caller sent may not be encodable otherwise."""
        return json.dumps(ErrorEnvelope(error=self.body).model_dump()).encode("ascii")

    def to_response(self) -> Response:
        """The whole answer."""
        return Response(self.to_json(), self.status, dict(self.headers), media_type="application/json")


def refuse(
    status: int,
    message: str,
    *,
    code: str | None,
    param: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> Refusal:
    """A refusal whose type follows from its status; 500 and 504 ask not to be tried again by themselves."""
    kind = INVALID_REQUEST if status < 500 else SERVER_ERROR
    return _refusal(status, ErrorBody(message=message, type=kind, param=param, code=code), headers or {})


def from_engine_error(error: EngineError) -> Refusal:
    """What the engine refused or failed at, as the tree of `engine.errors` maps to statuses."""
    status, kind, code = next(row[1:] for row in _ENGINE_ERRORS if isinstance(error, row[0]))
    message = error.message
    if isinstance(error, EngineUnavailableError) and error.state not in message:
        message = f"{message} (the engine is {error.state})"
    param = error.param if isinstance(error, RequestError) else None
    headers: dict[str, str] = {}
    if isinstance(error, RetryableError):
        headers["Retry-After"] = str(max(1, math.ceil(error.retry_after_s)))
    return _refusal(status, ErrorBody(message=message, type=kind, param=param, code=code), headers)


def from_http_error(error: HTTPException, method: str, path: str) -> Refusal:
    """What routing or the reading of the body refused."""
    template, code = _HTTP_ERRORS.get(error.status_code, ("{detail}", None))
    message = template.format(method=method, path=path, detail=error.detail)
    return refuse(error.status_code, message, code=code, headers=error.headers)


def from_validation(errors: Sequence[Mapping[str, object]], body: object) -> Refusal:
    """The first complaint about a body, with the path of the field it is about."""
    error = errors[0]
    kind, message = str(error["type"]), str(error["msg"])
    if kind == "json_invalid":
        return refuse(400, f"The body is not valid JSON: {_reason(error)}", code="invalid_json")
    location = error["loc"]
    assert isinstance(location, Sequence)
    if len(location) <= 1 and not isinstance(body, dict):
        message = "The body must be a JSON object, sent with Content-Type: application/json"
        return refuse(400, message, code="invalid_type")
    param = _path([*location[1:], *_context_param(error)], body)
    if kind == "extra_forbidden":
        message = f"Unrecognized request argument supplied: {_cut(param)}"
    elif kind == "missing":
        message = f"Missing required parameter: '{param}'. {message}."
    elif kind not in (UNSUPPORTED_PARAMETER, "invalid_value"):
        message = f"Invalid '{param}', which is {_shown(error.get('input'))}: {message}."
    code = _VALIDATION_CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")
    return refuse(400, message, code=code, param=param)


def unexpected(request_id: str) -> Refusal:
    """A bug of ours; the message tells where to look, not what is there."""
    return refuse(
        500, f"The server failed; its log tells why, at request {request_id}", code="internal_error"
    )


def _refusal(status: int, body: ErrorBody, headers: Mapping[str, str]) -> Refusal:
    final = {"x-should-retry": "false"} if status in (500, 504) else {}
    return Refusal(status=status, body=body, headers={**final, **headers})


def _reason(error: Mapping[str, object]) -> str:
    context, location = error.get("ctx"), error.get("loc")
    reason = context.get("error", "") if isinstance(context, Mapping) else ""
    position = location[-1] if isinstance(location, Sequence) and location else "?"
    return f"{reason} at character {position}"


def _context_param(error: Mapping[str, object]) -> Iterable[str | int]:
    """Where a complaint is about a place inside of what was checked: a name, or the steps to it."""
    context = error.get("ctx")
    if not isinstance(context, Mapping) or "param" not in context:
        return ()
    param = context["param"]
    return param if isinstance(param, tuple) else (str(param),)


def _path(location: Sequence[str | int], body: object) -> str:
    """`location` as `messages[0].content`, without the tags that unions put between real steps.

    A real step is one that the body has; only the last may be one that it lacks.
    """
    path, here = "", body
    for depth, step in enumerate(location):
        if isinstance(step, int) and isinstance(here, list) and step < len(here):
            path, here = f"{path}[{step}]", here[step]
        elif isinstance(here, dict) and (step in here or depth == len(location) - 1):
            path, here = f"{path}.{step}" if path else str(step), here.get(step)
    return path


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN_CHARS else f"{text[:MAX_SHOWN_CHARS]}…"


def _shown(value: object) -> str:
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "an array"
    return _cut(json.dumps(value, default=str))
