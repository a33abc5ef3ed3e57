from copy import deepcopy

import httpx
import pytest

from server.app import create_app
from server.contract.fields import ContractField, Status
from server.contract.table import ENDPOINTS
from server.settings import Settings
from tests.support.bodies import CHAT, COMPLETION
from tests.support.fake_engine import MODEL_ID, FakeEngine

pytestmark = pytest.mark.anyio
INFILL = {"<|fim_prefix|>": 0x100000, "<|fim_suffix|>": 0x100001, "<|fim_middle|>": 0x100002}
MINIMAL = {
    "POST /v1/chat/completions": CHAT,
    "POST /v1/chat/completions/render": CHAT,
    "POST /v1/completions": COMPLETION,
    "POST /tokenize": {"messages": CHAT["messages"]},
    "POST /detokenize": {"tokens": [72]},
}
OF_ROLES = {
    "refusal": "assistant",
    "tool_calls": "assistant",
    "function_call": "assistant",
    "tool_call_id": "tool",
    "reasoning": "assistant",
    "reasoning_content": "assistant",
}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
CASES = [
    pytest.param(endpoint, field, id=f"{endpoint.split('/', 1)[1]} {field.name}")
    for endpoint, fields in ENDPOINTS.items()
    for field in fields
]


@pytest.fixture(scope="module")
def engine():
    return FakeEngine()


@pytest.fixture(scope="module")
def app(engine):
    """One for all fields: it puts its routes together at its first request, and that takes longest."""
    return create_app(Settings(), engine)


@pytest.fixture
async def client(app):
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server") as client:
        yield client


def body_with(endpoint: str, field: ContractField) -> dict:
    """The endpoint's smallest body with the field's example in its place."""
    body = {**MINIMAL[endpoint], **dict(field.companions)}
    place, _, name = field.name.rpartition(".")
    if field.name == "model":
        return {**body, "model": MODEL_ID}
    if place == "messages[]":
        message = {"role": OF_ROLES.get(name, "user"), "content": "Hi", name: field.example}
        before = [{"role": "assistant", "tool_calls": [CALL]}] if message["role"] == "tool" else []
        return {**body, "messages": [*before, message]}
    if endpoint == "POST /tokenize" and name == "prompt":
        del body["messages"]
    return {**body, place or name: field.example}


@pytest.mark.parametrize(("endpoint", "field"), CASES)
async def test_each_field_is_taken_or_refused_as_the_table_says(client, engine, endpoint, field):
    engine.special = INFILL
    answer = await client.post(endpoint.split()[1], json=body_with(endpoint, field))

    if field.status is Status.REFUSED:
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "unsupported_parameter")
        assert error["param"].endswith(field.name.rpartition(".")[2])
        assert field.note in error["message"]
    else:
        assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("endpoint", "field"), [case for case in CASES if case.values[1].status is Status.REFUSED]
)
async def test_a_refused_field_passes_where_it_asks_for_nothing(client, endpoint, field):
    body = deepcopy(body_with(endpoint, field))  # what is changed here is the table's
    place, _, name = field.name.rpartition(".")
    holder = {"": body, "messages[]": body["messages"][0] if "messages" in body else None}.get(place) or body[
        place
    ]
    for neutral in field.neutral:
        holder[name] = neutral
        assert (await client.post(endpoint.split()[1], json=body)).status_code == 200


def test_no_field_is_named_twice():
    for fields in ENDPOINTS.values():
        names = [field.name for field in fields]
        assert len(names) == len(set(names))


def test_every_field_has_a_sentence():
    assert all(field.note.endswith(".") for fields in ENDPOINTS.values() for field in fields)
