import hashlib
import logging
import re
from collections.abc import Iterator

import httpx
import pytest

from engine import EngineState
from server.app import create_app
from server.metrics.http import HttpTally
from server.middleware import RequestId
from server.settings import Settings
from tests.support.bodies import CHAT, CHAT_PATH, COMPLETION, COMPLETION_PATH
from tests.support.fake_engine import FakeEngine

pytestmark = pytest.mark.anyio
KEYS = ("first", "second")


@pytest.fixture
async def guarded(client_for):
    async with client_for(api_key=KEYS) as client:
        yield client


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/health"),
        ("GET", "/ready"),
        ("GET", "/v1/models"),
        ("GET", "/nope"),
        ("PUT", CHAT_PATH),
        ("POST", CHAT_PATH),
    ],
)
async def test_every_answer_has_a_request_id(client, method, path):
    answer = await client.request(method, path)

    assert re.fullmatch(r"req_[0-9a-f]{32}", answer.headers["x-request-id"])


async def test_a_refused_caller_gets_a_request_id_too(guarded):
    assert (await guarded.get("/v1/models")).headers["x-request-id"].startswith("req_")


async def test_request_ids_differ(client):
    first, second = await client.get("/health"), await client.get("/health")

    assert first.headers["x-request-id"] != second.headers["x-request-id"]


async def test_a_clients_own_request_id_is_echoed(client):
    answer = await client.get("/health", headers={"x-request-id": "my/id-7"})

    assert answer.headers["x-request-id"] == "my/id-7"


@pytest.mark.parametrize(
    "sent", ["", "with space", "x" * 129, "caf\xe9"], ids=["empty", "space", "long", "latin"]
)
async def test_an_odd_request_id_is_replaced(client, sent):
    answer = await client.get("/health", headers={"x-request-id": sent.encode("latin-1")})

    assert answer.headers["x-request-id"].startswith("req_")


async def test_an_unexpected_failure_is_a_500_that_reveals_nothing(client, engine, caplog):
    engine.submit_error = RuntimeError("the secret inside")
    answer = await client.post(CHAT_PATH, json=CHAT)

    assert answer.status_code == 500
    assert answer.headers["x-should-retry"] == "false"
    assert "secret" not in answer.text
    assert answer.headers["x-request-id"] in answer.json()["error"]["message"]
    assert "the secret inside" in caplog.text


def answered(caplog, level=logging.INFO):
    return [
        record.getMessage()
        for record in caplog.records
        if record.name == "server.observation" and record.levelno >= level
    ]


async def test_each_request_is_one_log_line(client, caplog):
    caplog.set_level(logging.DEBUG, "server.observation")
    await client.get("/v1/models")

    [line] = answered(caplog)
    assert "path='/v1/models' status=200" in line


async def test_a_refused_generation_is_one_log_line(client, caplog):
    caplog.set_level(logging.DEBUG, "server.observation")
    await client.post(CHAT_PATH, json={**CHAT, "model": "other"})

    [line] = answered(caplog)
    assert f"path='{CHAT_PATH}' status=404" in line


@pytest.mark.parametrize("is_streamed", [False, True], ids=["whole", "stream"])
@pytest.mark.parametrize(
    ("path", "body"), [(CHAT_PATH, CHAT), (COMPLETION_PATH, COMPLETION)], ids=["chat", "completion"]
)
async def test_a_generation_is_one_log_line_which_tells_all(client, engine, caplog, path, body, is_streamed):
    caplog.set_level(logging.DEBUG, "server.observation")
    answer = await client.post(path, json={**body, "stream": is_streamed})
    number = answer.headers["x-request-id"].removeprefix("req_")

    [line] = answered(caplog)
    assert f"id=req_{number} number={number} method=POST route={path} status=200 reason=stop " in line
    assert number in engine.requests[0].request_id


async def test_a_clients_own_id_is_joined_to_the_answers(client, caplog):
    caplog.set_level(logging.DEBUG, "server.observation")
    answer = await client.post(CHAT_PATH, json=CHAT, headers={"x-request-id": "my/id-7"})
    number = answer.json()["id"].removeprefix("chatcmpl-")

    [line] = answered(caplog)
    assert f"id=my/id-7 number={number} " in line


@pytest.mark.parametrize("path", ["/health", "/ready", "/metrics"])
async def test_probes_and_scrapes_are_not_logged_by_default(client, caplog, path):
    caplog.set_level(logging.DEBUG, "server.observation")
    await client.get(path)

    assert (answered(caplog), len(answered(caplog, logging.DEBUG))) == ([], 1)


async def test_no_line_of_the_log_tells_what_was_said(client, caplog):
    caplog.set_level(logging.INFO)
    told = {"role": "user", "content": "a secret thing"}
    await client.post(CHAT_PATH, json={**CHAT, "messages": [told]})

    assert "secret" not in caplog.text
    assert "Hello" not in caplog.text


@pytest.mark.parametrize("key", KEYS)
async def test_each_key_opens_the_door(guarded, key):
    answer = await guarded.get("/v1/models", headers={"Authorization": f"Bearer {key}"})

    assert answer.status_code == 200


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "Bearer",
        "Bearer ",
        "Bearer third",
        "Basic first",
        "first",
        f"Bearer {hashlib.sha256(b'first').hexdigest()}",
    ],
    ids=["none", "empty", "bare", "blank", "wrong", "scheme", "keyonly", "digest"],
)
async def test_without_a_key_the_answer_is_401(guarded, header):
    headers = {} if header is None else {"Authorization": header}
    answer = await guarded.get("/v1/models", headers=headers)

    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.json()["error"]["code"] == "invalid_api_key"
    assert answer.json()["error"]["type"] == "invalid_request_error"


@pytest.mark.parametrize(
    "path", ["/nope", "/docs", "/openapi.json", "/redoc", CHAT_PATH, "/health/", "//health"]
)
async def test_every_other_path_needs_a_key(guarded, path):
    assert (await guarded.get(path)).status_code == 401


@pytest.mark.parametrize("path", ["/health", "/ready"])
async def test_health_needs_no_key(guarded, path):
    assert (await guarded.get(path)).status_code == 200


@pytest.fixture
async def scoped(client_for, tmp_path):
    file = tmp_path / "keys"
    file.write_text("inference:i\nmetrics:m\nadmin:a\n")
    async with client_for(api_key_file=file) as client:
        yield client


def every_path() -> list[tuple[str, str]]:
    """Method and path of every route of the application, its documents included."""
    app = create_app(Settings(api_key=("k",)), FakeEngine())
    return sorted(
        (method, re.sub(r"\{[^}]*\}", "x", path))
        for method, path in walk(app.routes)
        if method not in ("HEAD", "OPTIONS")
    )


def walk(routes) -> Iterator[tuple[str, str]]:
    for route in routes:
        if (inner := getattr(route, "original_router", None)) is not None:
            yield from walk(inner.routes)
        else:
            yield from ((method, route.path) for method in route.methods)


@pytest.mark.parametrize(("method", "path"), every_path(), ids=lambda value: value)
async def test_only_health_answers_without_a_key(guarded, method, path):
    status = (await guarded.request(method, path)).status_code

    assert (status == 401) == (path not in ("/health", "/ready"))


def test_the_route_table_is_walked_as_a_whole():
    paths = {path for _, path in every_path()}

    assert {"/docs", "/openapi.json", "/redoc", "/tokenize", CHAT_PATH, "/health"} <= paths
    assert len(paths) >= 12


@pytest.mark.parametrize(
    ("key", "path", "status"),
    [
        ("i", "/v1/models", 200),
        ("a", "/v1/models", 200),
        ("m", "/v1/models", 403),
        ("m", "/openapi.json", 403),
        ("i", "/metrics", 403),
        ("m", "/metrics", 200),
        ("a", "/metrics", 200),
        ("i", "/stats", 403),
        ("m", "/stats", 403),
        ("a", "/stats", 200),
        ("i", "/admin/x", 403),
        ("m", "/admin/x", 403),
        ("a", "/admin/x", 404),
    ],
)
async def test_a_key_opens_what_its_scopes_say(scoped, key, path, status):
    answer = await scoped.get(path, headers={"Authorization": f"Bearer {key}"})

    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "insufficient_scope"


@pytest.mark.parametrize("shown", ["/llm/v1/models", "/v1/models"])
async def test_below_a_root_path_keys_are_needed_as_above(client_for, shown):
    async with client_for(api_key=KEYS, root_path="/llm") as client:
        refused = await client.get(shown)
        answer = await client.get(shown, headers={"Authorization": "Bearer first"})
        health = await client.get("/llm/health")

    assert (refused.status_code, answer.status_code, health.status_code) == (401, 200, 200)


async def test_pages_of_no_other_origin_may_call_unless_given(client):
    answer = await client.get("/v1/models", headers={"Origin": "https://page"})

    assert "access-control-allow-origin" not in answer.headers


@pytest.mark.parametrize(("origin", "is_allowed"), [("https://page", True), ("https://other", False)])
async def test_pages_of_given_origins_may_call(client_for, origin, is_allowed):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST"}
    async with client_for(api_key=KEYS, cors_origin=("https://page",)) as client:
        preflight = await client.options(CHAT_PATH, headers=asked)
        refused = await client.get("/v1/models", headers={"Origin": origin})

    assert (preflight.status_code == 200) == is_allowed
    assert refused.status_code == 401
    assert (refused.headers.get("access-control-allow-origin") == origin) == is_allowed


async def test_without_keys_no_header_is_needed(client):
    assert (await client.get("/v1/models")).status_code == 200


async def test_a_body_with_too_large_an_announced_length_is_413(client_for):
    async with client_for(max_body_bytes=100) as client:
        answer = await client.post(CHAT_PATH, content=b" " * 101)

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"
    assert "100 bytes" in answer.json()["error"]["message"]


async def test_a_chunked_body_is_413_once_it_is_too_large(client_for):
    async def chunks():
        for _ in range(11):
            yield b" " * 10

    async with client_for(max_body_bytes=100) as client:
        answer = await client.post(CHAT_PATH, content=chunks(), headers={"Content-Type": "application/json"})

    assert answer.status_code == 413
    assert answer.json()["error"]["code"] == "body_too_large"


async def test_a_body_of_exactly_the_limit_is_read(client_for, engine):
    content = httpx.Request("POST", "http://server", json=CHAT).content
    async with client_for(max_body_bytes=len(content)) as client:
        answer = await client.post(CHAT_PATH, content=content, headers={"Content-Type": "application/json"})

    assert answer.status_code == 200


async def test_a_caller_is_refused_before_anything_is_told(client_for, engine):
    engine.state = EngineState.STARTING
    async with client_for(api_key=KEYS, max_body_bytes=1) as client:
        answer = await client.post(CHAT_PATH, json=CHAT)

    assert answer.status_code == 401


async def test_an_observer_that_fails_is_logged_and_hurts_no_request(caplog):
    async def answer(scope, receive, send):
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    def fail(answered):
        raise RuntimeError("a bug")

    seen = []
    app = RequestId(answer, HttpTally(), [fail, seen.append])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        answer = await client.get("/x", headers={"traceparent": "00-aa-bb-01"})

    assert answer.status_code == 204
    assert "a bug" in caplog.text
    assert [(found.status, found.trace_headers) for found in seen] == [(204, {"traceparent": "00-aa-bb-01"})]
