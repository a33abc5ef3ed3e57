import json
import logging

import pytest
from fastapi.routing import APIRoute

from engine import (
    DeadlineError,
    EngineCrashedError,
    EngineState,
    EngineUnavailableError,
    OverloadedError,
    RateLimitedError,
    StepError,
)
from server.app import ROUTERS, create_app
from server.settings import Settings
from tests.support.bodies import CHAT, CHAT_PATH, COMPLETION, COMPLETION_PATH
from tests.support.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
BOTH = pytest.mark.parametrize(
    ("path", "body"), [(CHAT_PATH, CHAT), (COMPLETION_PATH, COMPLETION)], ids=["chat", "completion"]
)


async def run_lifespan(app) -> None:
    async with app.router.lifespan_context(app):
        pass


async def test_the_lifespan_starts_and_stops_the_engine(engine: FakeEngine):
    await run_lifespan(create_app(Settings(drain_s=0), engine))

    assert (engine.num_starts, engine.num_stops) == (1, 1)


async def test_an_engine_that_was_started_is_not_started_again(engine: FakeEngine):
    await run_lifespan(create_app(Settings(), engine, is_started=True))

    assert (engine.num_starts, engine.num_stops) == (0, 1)


@BOTH
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (OverloadedError("full"), 503),
        (EngineUnavailableError("gone", "restarting"), 503),
        (RateLimitedError("slow down"), 429),
        (DeadlineError("too late"), 504),
        (StepError("broke"), 500),
        (EngineCrashedError("died"), 500),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
async def test_what_the_engine_refuses_is_an_error_answer(client, engine, path, body, error, status):
    engine.submit_error = error
    answer = await client.post(path, json=body)

    assert answer.status_code == status
    assert answer.json()["error"]["message"].startswith(error.message)


@BOTH
async def test_while_the_model_loads_the_answer_is_503_with_the_state(client, engine, path, body):
    engine.state, engine.detail, engine.card = EngineState.STARTING, "loading weights 43%", None
    answer = await client.post(path, json=body)

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert "starting" in answer.json()["error"]["message"]
    assert "43%" in answer.json()["error"]["message"]


@BOTH
@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"nope", b'{"model": }', b"\xff\xfe", b"[" * 100_000, b'{"a": 1' + b"0" * 5000 + b"}"],
    ids=["empty", "open", "word", "hole", "bytes", "deep", "long"],
)
async def test_malformed_json_is_a_400(client, path, body, content):
    answer = await client.post(path, content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"


@BOTH
@pytest.mark.parametrize("content", [b"[]", b'"text"', b"3", b"null", b"true"], ids=bytes.decode)
async def test_a_body_that_is_no_object_is_a_400(client, path, body, content):
    answer = await client.post(path, content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 400
    assert "JSON object" in answer.json()["error"]["message"]


@BOTH
async def test_a_body_of_another_type_is_a_400_that_names_the_right_one(client, path, body):
    answer = await client.post(path, data={"model": "x"})

    assert answer.status_code == 400
    assert "application/json" in answer.json()["error"]["message"]


@BOTH
async def test_an_unknown_model_is_a_404(client, path, body):
    answer = await client.post(path, json={**body, "model": "gpt-4"})

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"
    assert answer.json()["error"]["param"] == "model"


@BOTH
async def test_what_can_never_fit_is_a_400(client, path, body):
    answer = await client.post(path, json={**body, "max_tokens": 5000})

    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "context_length_exceeded"
    assert answer.json()["error"]["param"] == "max_tokens"


@pytest.mark.parametrize(
    ("path", "body", "param"), [(CHAT_PATH, CHAT, "messages"), (COMPLETION_PATH, COMPLETION, "prompt")]
)
@pytest.mark.parametrize("root_path", ["", "/llm"])
async def test_what_is_too_long_names_the_field_to_shorten(client_for, root_path, path, body, param):
    long = {name: _lengthened(value) if name == param else value for name, value in body.items()}
    async with client_for(root_path=root_path) as client:
        error = (await client.post(root_path + path, json=long)).json()["error"]

    assert (error["param"], error["code"]) == (param, "context_length_exceeded")
    assert f"Shorten the {param}" in error["message"]
    assert "max_tokens" not in error["message"]


def _lengthened(prompt):
    return prompt * 600 if isinstance(prompt, str) else [{"role": "user", "content": "Hi" * 600}]


@pytest.mark.parametrize("error", [OverloadedError("full"), EngineUnavailableError("gone", "restarting")])
async def test_a_refusal_that_passes_is_no_warning(client, engine, caplog, error):
    engine.submit_error = error
    await client.post(CHAT_PATH, json=CHAT)

    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


async def test_a_failure_is_a_warning_with_the_request_id(client, engine, caplog):
    engine.submit_error = StepError("step 7 failed")
    answer = await client.post(CHAT_PATH, json=CHAT)

    [warning] = [record.message for record in caplog.records if record.levelno >= logging.WARNING]
    assert answer.headers["x-request-id"] in warning
    assert "step 7 failed" in warning


async def test_a_probe_of_an_engine_that_is_not_ready_logs_nothing_above_debug(client, engine, caplog):
    caplog.set_level(logging.DEBUG)
    engine.state = EngineState.STARTING
    await client.get("/ready")

    lines = [record for record in caplog.records if record.name.startswith("server")]
    assert [record.levelno for record in lines] == [logging.DEBUG]


@BOTH
async def test_more_choices_than_places_are_a_400(client_for, path, body):
    async with client_for(max_running=1, max_waiting=1) as client:
        answer = await client.post(path, json={**body, "n": 3})

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "n"


@pytest.mark.parametrize(
    "path", ["/", "/v1", "/v1/", "/v1/chat/completions/", "/v1/models/", "/v2/models", "/%00"]
)
async def test_an_unknown_path_is_a_404_in_the_envelope(client, path):
    answer = await client.get(path)

    assert answer.status_code == 404
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", CHAT_PATH, "POST"),
        ("DELETE", COMPLETION_PATH, "POST"),
        ("POST", "/v1/models", "GET"),
        ("POST", "/health", "GET"),
    ],
)
async def test_a_wrong_method_is_a_405_that_says_which_are_right(client, method, path, allowed):
    answer = await client.request(method, path)

    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["error"]["code"] == "method_not_allowed"


async def test_the_openapi_document_has_every_route(client):
    document = (await client.get("/openapi.json")).json()
    routes = {
        route.path.replace(":path", "")
        for router in ROUTERS
        for route in router.routes
        if isinstance(route, APIRoute)
    }

    assert set(document["paths"]) == routes
    assert len(routes) == 13


async def test_the_openapi_document_describes_errors_as_they_are(client):
    document = (await client.get("/openapi.json")).json()
    answers = document["paths"][CHAT_PATH]["post"]["responses"]

    assert set(answers) == {"200", "4XX", "5XX"}
    assert answers["4XX"]["content"]["application/json"]["schema"]["$ref"].endswith("/ErrorEnvelope")
    assert set(answers["200"]["content"]) == {"application/json", "text/event-stream"}


async def test_the_openapi_document_describes_every_parameter(client):
    schemas = (await client.get("/openapi.json")).json()["components"]["schemas"]
    fields = schemas["ChatCompletionRequest"]["properties"] | schemas["CompletionRequest"]["properties"]

    assert all(field.get("description") for field in fields.values())


async def test_the_docs_are_served(client):
    assert (await client.get("/docs")).status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"5": 1000}}, "logit_bias.5"),
        ({"chat_template_kwargs": {"x": "\\ud800"}}, "chat_template_kwargs"),
        ({"cache_salt": "\\ud800"}, "cache_salt"),
    ],
    ids=str,
)
async def test_a_bad_value_is_named_by_its_path(client, fields, param):
    content = json.dumps({**CHAT, **fields}).replace("\\\\ud800", "\\ud800")
    answer = await client.post(CHAT_PATH, content=content, headers={"Content-Type": "application/json"})

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_unknown_field_with_a_very_long_name_is_named_shortly(client):
    answer = await client.post(CHAT_PATH, json={**CHAT, "x" * 5000: 1})

    assert answer.status_code == 400
    assert len(answer.json()["error"]["message"]) < 200


HINTS = {
    "metadata": {"a": "b"},
    "store": True,
    "service_tier": "auto",
    "safety_identifier": "s",
    "prompt_cache_key": "k",
}


@BOTH
async def test_hints_are_taken_by_both_endpoints(client, path, body):
    assert (await client.post(path, json={**body, **HINTS})).status_code == 200


async def test_even_a_failure_may_be_read_by_pages_of_other_origins(client_for, engine):
    engine.submit_error = ValueError("a bug")
    async with client_for(cors_origin=("https://page",)) as client:
        answer = await client.post(CHAT_PATH, json=CHAT, headers={"Origin": "https://page"})

    assert answer.status_code == 500
    assert answer.headers["access-control-allow-origin"] == "https://page"
    assert "x-should-retry" in answer.headers["access-control-expose-headers"]
