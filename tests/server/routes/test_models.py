import pytest
from openai.types import Model

from engine import EngineState
from tests.support.fake_engine import MODEL_ID

pytestmark = pytest.mark.anyio


async def test_the_served_model_is_listed(client):
    body = (await client.get("/v1/models")).json()

    assert body["object"] == "list"
    assert [Model.model_validate(model).id for model in body["data"]] == [MODEL_ID]
    assert body["data"][0]["created"] == 1_700_000_000


async def test_a_model_is_described_by_its_id_with_its_slash(client):
    answer = await client.get(f"/v1/models/{MODEL_ID}")

    assert answer.status_code == 200
    assert Model.model_validate(answer.json()).id == MODEL_ID


async def test_another_model_is_a_404(client):
    answer = await client.get("/v1/models/gpt-4")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "model_not_found"


async def test_the_model_is_listed_while_it_loads(client, engine):
    engine.state, engine.card = EngineState.STARTING, None

    assert (await client.get("/v1/models")).status_code == 200


async def test_a_model_without_a_name_is_an_unknown_path(client):
    answer = await client.get("/v1/models/")

    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"
