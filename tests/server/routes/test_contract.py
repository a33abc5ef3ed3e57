import pytest

from server.contract.table import ENDPOINTS

pytestmark = pytest.mark.anyio


async def test_the_contract_is_served(client):
    told = (await client.get("/v1/contract")).json()

    assert set(told) == set(ENDPOINTS)
    assert {f["status"] for f in told["POST /v1/chat/completions"]} == {"supported", "refused", "hint"}
