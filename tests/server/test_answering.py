import asyncio

import httpx
import pytest

from engine import EngineUnavailableError, RequestError, UnknownModelError
from server.answering import (
    answer_whole,
    new_ticket,
    require_card,
    require_model,
    require_places,
    unavailable,
)
from server.dependencies import Caller
from server.settings import Settings
from server.streams import open_streams
from tests.server.test_streams import request
from tests.support.bodies import CHAT, CHAT_PATH
from tests.support.fake_engine import CARD, MODEL_ID, FakeEngine, Script

CALLER = Caller(name="anonymous", request_id="req_1", arrived_s=5.5)


class TextFold:
    """Gathers bare texts."""

    def __init__(self):
        self.texts = []

    def add(self, prompt_index, event):
        self.texts.append(event.text)

    def to_json(self):
        return "|".join(self.texts)


def test_another_model_is_unknown(engine: FakeEngine):
    with pytest.raises(UnknownModelError, match=f"serves '{MODEL_ID}'"):
        require_model(engine, "other")


def test_a_model_that_is_not_loaded_is_unavailable(engine: FakeEngine):
    engine.card, engine.detail = None, "loading weights 43%"
    with pytest.raises(EngineUnavailableError, match="43%"):
        require_card(engine, MODEL_ID)


def test_why_an_engine_is_unavailable_names_its_state(engine: FakeEngine):
    error = unavailable(engine)

    assert error.state == "ready"
    assert "ready" in error.message


def test_more_choices_than_places_are_refused():
    settings = Settings(max_running=2, max_waiting=1)
    require_places(settings, 3)
    with pytest.raises(RequestError, match="at most 3"):
        require_places(settings, 4)


def test_tickets_differ_in_id_and_seed():
    first, second = (new_ticket("chatcmpl", CARD, CALLER) for _ in range(2))

    assert first.answer_id != second.answer_id
    assert first.seed != second.seed
    assert first.fingerprint == second.fingerprint
    assert first.created_s == 5.5


@pytest.mark.anyio
async def test_a_whole_answer_folds_every_event(engine: FakeEngine):
    streams = await open_streams(engine, [request()])
    answer = await answer_whole(asyncio.Event().wait, streams, TextFold())

    assert answer.body.decode() == "Hello| wörld| 🙂"
    assert engine.open_ids == set()


@pytest.mark.anyio
async def test_a_client_that_leaves_cancels_its_whole_answer(engine: FakeEngine):
    async def receive():
        return {"type": "http.disconnect"}

    engine.script = Script(is_endless=True)
    streams = await open_streams(engine, [request()])
    await answer_whole(receive, streams, TextFold())

    assert engine.open_ids == set()


def test_a_client_that_leaves_a_live_whole_answer_frees_it(live):
    engine = live.engine
    engine.script = Script(is_endless=True)
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(live.url + CHAT_PATH, json=CHAT, timeout=0.3)
    live.wait(engine.closed)

    assert engine.open_ids == set()
    assert len(engine.requests) == 1
