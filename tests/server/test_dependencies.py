import hashlib

import httpx
import pytest

from server.app import create_app
from server.dependencies import CallerDep
from server.settings import Settings

pytestmark = pytest.mark.anyio


@pytest.fixture
def client_with_route(engine):
    """A client of an app that tells who is calling, under /whoami."""

    def make(**settings: object) -> httpx.AsyncClient:
        app = create_app(Settings(**settings), engine, clock=lambda: 7.0)

        @app.get("/whoami")
        async def whoami(caller: CallerDep) -> dict[str, object]:
            return {"name": caller.name, "request_id": caller.request_id, "arrived_s": caller.arrived_s}

        return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://server")

    return make


async def test_a_caller_without_key_is_anonymous(client_with_route):
    async with client_with_route() as client:
        told = (await client.get("/whoami", headers={"x-request-id": "me-1"})).json()

    assert told == {"name": "anonymous", "request_id": "me-1", "arrived_s": 7.0}


async def test_a_caller_with_key_is_named_by_a_part_of_its_digest(client_with_route):
    async with client_with_route(api_key=("k",)) as client:
        told = (await client.get("/whoami", headers={"Authorization": "Bearer k"})).json()

    assert told["name"] == f"key-{hashlib.sha256(b'k').hexdigest()[:8]}"
