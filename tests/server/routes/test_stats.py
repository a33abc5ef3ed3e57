from dataclasses import replace

import pytest

from engine import EngineCounters, EngineState, EngineView, PoolGauges, PrefixCounters, RingView, SequenceView
from tests.support.bodies import CHAT, CHAT_PATH

pytestmark = pytest.mark.anyio

RING = RingView(window=8, block_ids=(5, 2), base=8, length=7, max_blocks=4)
SEQUENCE = SequenceView(
    sequence_id=256,
    request_id="chatcmpl-1",
    caller="key-1",
    choice=0,
    state="running",
    priority=0,
    num_prompt_tokens=10,
    num_tokens=16,
    num_computed=15,
    num_cached=4,
    rings=(RING,),
)


async def test_a_live_engine_tells_each_sequence_with_its_rings(client, engine):
    engine.view = EngineView(sequences=(SEQUENCE,))
    engine.open_ids.add("chatcmpl-1")
    body = (await client.get("/stats")).json()
    (sequence,) = body["sequences"]

    assert (body["is_live"], body["detail"]) == (True, "")
    assert sequence["rings"] == [{"window": 8, "entries": [5, 2], "base": 8, "length": 7, "max_entries": 4}]
    assert (sequence["request_id"], sequence["age_s"], sequence["num_blocks"]) == ("chatcmpl-1", 1.5, 2)
    assert body["open_requests"] == {"chatcmpl-1": 1.5}


async def test_a_request_that_has_ended_meanwhile_has_no_age(client, engine):
    engine.view = EngineView(sequences=(SEQUENCE,))

    assert (await client.get("/stats")).json()["sequences"][0]["age_s"] is None


async def test_a_stuck_engine_is_said_to_be_stuck_with_what_is_known(client, engine):
    engine.silent_s = 12.34
    engine.pool = PoolGauges(num_blocks=10, num_free=4, num_evictable=1)
    answer = await client.get("/stats", params={"timeout_s": 0.5})
    body = answer.json()

    assert answer.status_code == 200
    assert body["is_live"] is False
    assert "not answered within 0.5 s" in body["detail"]
    assert "12.3 s ago" in body["detail"]
    assert body["pool"]["num_held"] == 5


async def test_an_engine_that_is_not_ready_says_why(client, engine):
    engine.state, engine.detail = EngineState.RESTARTING, "crashed"
    body = (await client.get("/stats")).json()

    assert body["detail"] == "the engine is restarting: crashed"


@pytest.mark.parametrize(("queried", "rate"), [(0, None), (80, 0.25)])
async def test_the_hit_rate_is_told_once_there_were_look_ups(client, engine, queried, rate):
    engine.counters = EngineCounters(prefix=PrefixCounters(num_tokens=queried, num_cached_tokens=20))

    assert (await client.get("/stats")).json()["prefix_cache"]["hit_rate"] == rate


@pytest.mark.parametrize("timeout_s", [0, -1, 31, "soon"])
async def test_a_timeout_out_of_range_is_refused(client, timeout_s):
    assert (await client.get("/stats", params={"timeout_s": timeout_s})).status_code == 400


async def test_nothing_of_a_prompt_is_told(client, engine):
    engine.view = EngineView(sequences=(SEQUENCE,))
    await client.post(CHAT_PATH, json=CHAT)

    assert "token_ids" not in (await client.get("/stats")).text


async def test_each_callers_sequences_are_counted(client, engine):
    changes = [{}, {"state": "waiting"}, {"state": "waiting"}, {"caller": "key-2"}]
    engine.view = EngineView(sequences=tuple(replace(SEQUENCE, **change) for change in changes))

    assert (await client.get("/stats")).json()["callers"] == {
        "key-1": {"num_running": 1, "num_waiting": 2},
        "key-2": {"num_running": 1, "num_waiting": 0},
    }
