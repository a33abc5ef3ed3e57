import json

import pytest

from engine import (
    CheckpointError,
    ConfigError,
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
from server.errors import from_engine_error, from_validation, refuse, unexpected

TREE = [
    (RequestError("m", "top_p"), 400, "invalid_request_error", "invalid_value", "top_p"),
    (
        ContextLengthError("m", "max_tokens"),
        400,
        "invalid_request_error",
        "context_length_exceeded",
        "max_tokens",
    ),
    (UnknownModelError("m", "model"), 404, "invalid_request_error", "model_not_found", "model"),
    (OverloadedError("m"), 503, "server_error", "overloaded", None),
    (EngineUnavailableError("m", "starting"), 503, "server_error", "engine_unavailable", None),
    (RateLimitedError("m"), 429, "rate_limit_error", "rate_limit_exceeded", None),
    (DeadlineError("m"), 504, "server_error", "request_timeout", None),
    (StepError("m"), 500, "server_error", "step_failed", None),
    (EngineCrashedError("m"), 500, "server_error", "engine_crashed", None),
    (ConfigError("m"), 500, "server_error", "internal_error", None),
    (CheckpointError("m"), 500, "server_error", "internal_error", None),
    (EngineError("m"), 500, "server_error", "internal_error", None),
]
IDS = [type(row[0]).__name__ for row in TREE]


def all_errors(kind: type[EngineError] = EngineError) -> set[type[EngineError]]:
    return {kind}.union(
        *(all_errors(child) for child in kind.__subclasses__() if child.__module__ == "engine.errors")
    )


@pytest.mark.parametrize(("error", "status", "kind", "code", "param"), TREE, ids=IDS)
def test_an_engine_error_has_its_status_and_body(error, status, kind, code, param):
    refusal = from_engine_error(error)
    body = refusal.body

    assert (refusal.status, body.type, body.code, body.param) == (status, kind, code, param)
    assert body.message.startswith("m")


def test_every_error_of_the_tree_is_in_the_table():
    assert {type(row[0]) for row in TREE} == all_errors() - {RetryableError}


@pytest.mark.parametrize("error", [row[0] for row in TREE], ids=IDS)
def test_errors_that_may_pass_say_when_to_try_again(error):
    headers = from_engine_error(error).headers

    assert ("Retry-After" in headers) == isinstance(error, RetryableError)


@pytest.mark.parametrize("error", [row[0] for row in TREE], ids=IDS)
def test_500_and_504_ask_not_to_be_repeated(error):
    refusal = from_engine_error(error)

    assert (refusal.headers.get("x-should-retry") == "false") == (refusal.status in (500, 504))


def test_seconds_to_wait_are_whole_and_rounded_up():
    assert from_engine_error(OverloadedError("m", 2.2)).headers["Retry-After"] == "3"
    assert from_engine_error(OverloadedError("m", 0.0)).headers["Retry-After"] == "1"


def test_an_unavailable_engine_tells_its_state_once():
    told = from_engine_error(EngineUnavailableError("not now", "restarting")).body.message
    already = from_engine_error(EngineUnavailableError("it is restarting", "restarting")).body.message

    assert told == "not now (the engine is restarting)"
    assert already == "it is restarting"


def test_the_body_is_openais_envelope():
    body = json.loads(refuse(400, "no", code="c", param="p").to_json())

    assert body == {"error": {"message": "no", "type": "invalid_request_error", "param": "p", "code": "c"}}


def test_what_utf8_cannot_hold_is_escaped():
    assert json.loads(refuse(400, "\ud800", code=None).to_json())["error"]["message"] == "\ud800"


def test_an_unexpected_failure_reveals_nothing_but_the_request():
    refusal = unexpected("req_7")

    assert refusal.status == 500
    assert refusal.headers["x-should-retry"] == "false"
    assert "req_7" in refusal.body.message


def test_a_path_leaves_out_the_tags_of_unions():
    body = {"messages": [{"content": [{"type": "text"}]}]}
    location = ("body", "messages", 0, "content", "list", 0, "text")
    refusal = from_validation([{"type": "missing", "loc": location, "msg": "Field required"}], body)

    assert refusal.body.param == "messages[0].content[0].text"


def test_a_long_value_is_shown_shortened():
    error = {"type": "string_type", "loc": ("body", "model"), "msg": "no", "input": "x" * 10_000}

    assert len(from_validation([error], {"model": "x"}).body.message) < 200
