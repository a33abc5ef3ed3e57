import pytest

from engine import EngineState

pytestmark = pytest.mark.anyio


async def test_clearing_tells_how_many_blocks_were_forgotten(client):
    answers = [await client.post("/admin/cache/clear") for _ in range(2)]

    assert [answer.json() for answer in answers] == [{"num_forgotten_blocks": 3}, {"num_forgotten_blocks": 0}]


async def test_a_key_that_may_only_generate_clears_nothing(client_for, engine, tmp_path):
    keys = tmp_path / "keys"
    keys.write_text("inference:i\nadmin:a\n")
    async with client_for(api_key_file=keys) as client:
        answers = [
            await client.post("/admin/cache/clear", headers={"Authorization": f"Bearer {key}"})
            for key in ("i", "a")
        ]

    assert [answer.status_code for answer in answers] == [403, 200]
    assert engine.num_known_blocks == 0


async def test_without_an_engine_there_is_nothing_to_clear(client, engine):
    engine.state = EngineState.RESTARTING

    assert (await client.post("/admin/cache/clear")).status_code == 503
