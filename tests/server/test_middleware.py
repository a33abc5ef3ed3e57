import hashlib
import logging
import re

import httpx
import pytest

from engine import EngineState
from tests.support.bodies import CHAT, CHAT_PATH

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


async def test_each_request_is_one_log_line(client, caplog):
    caplog.set_level(logging.INFO, "server.middleware")
    await client.post(CHAT_PATH, json=CHAT)

    lines = [record.message for record in caplog.records if record.name == "server.middleware"]
    assert len(lines) == 1
    assert f"path='{CHAT_PATH}' status=200" in lines[0]


async def test_health_checks_are_not_logged_by_default(client, caplog):
    caplog.set_level(logging.INFO, "server.middleware")
    await client.get("/health")

    assert not [record for record in caplog.records if record.name == "server.middleware"]


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
