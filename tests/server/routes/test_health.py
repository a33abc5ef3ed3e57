import httpx
import pytest

from engine import EngineState

pytestmark = pytest.mark.anyio
OTHER_STATES = [state for state in EngineState if state is not EngineState.READY]


@pytest.mark.parametrize("state", EngineState)
async def test_health_is_200_in_every_state(client, engine, state):
    engine.state, engine.detail = state, "loading weights 43%"
    answer = await client.get("/health")
    body = answer.json()

    assert answer.status_code == 200
    assert (body["state"], body["detail"], body["generation"]) == (state.value, "loading weights 43%", 1)
    assert set(body["load"]) == {"num_running", "num_waiting", "num_free_blocks", "num_steps"}


async def test_ready_is_200_when_the_engine_takes_requests(client):
    assert (await client.get("/ready")).status_code == 200


async def test_while_it_drains_ready_says_to_come_back_when_another_has_its_place(client, engine):
    engine.state = EngineState.DRAINING

    assert (await client.get("/ready")).headers["retry-after"] == "10"


@pytest.mark.parametrize("state", OTHER_STATES)
async def test_ready_is_503_with_the_state_otherwise(client, engine, state):
    engine.state, engine.detail = state, "loading weights 43%"
    answer = await client.get("/ready")

    assert answer.status_code == 503
    assert int(answer.headers["retry-after"]) >= 1
    assert state.value in answer.json()["error"]["message"]
    assert "43%" in answer.json()["error"]["message"]


@pytest.mark.parametrize(("path", "status"), [("/health", 200), ("/ready", 503)])
async def test_a_probe_may_ask_for_the_head_alone(client, engine, path, status):
    engine.state = EngineState.STARTING

    assert (await client.head(path)).status_code == status


def test_the_head_alone_has_no_body(live):
    answer = httpx.head(f"{live.url}/ready")

    assert (answer.status_code, answer.content) == (200, b"")
