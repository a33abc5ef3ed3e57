import asyncio

import httpx
import pytest
from fastapi.exceptions import RequestValidationError

from engine import EngineState, EngineUnavailableError, RequestError, UnknownModelError
from server.answering import (
    answer_whole,
    new_ticket,
    refuse_unknown,
    require_card,
    require_logprobs,
    require_model,
    require_places,
    served_names,
    unavailable,
)
from server.dependencies import Caller
from server.schemas.chat import ChatCompletionRequest
from server.settings import Settings
from server.streams import open_streams
from tests.server.test_streams import request
from tests.support.bodies import CHAT, CHAT_PATH
from tests.support.fake_engine import CARD, MODEL_ID, FakeEngine, Script

CALLER = Caller(name="anonymous", request_id="req_1", number="1", arrived_s=5.5)


class TextFold:
    """Gathers bare texts."""

    def __init__(self):
        self.texts = []

    def add(self, prompt_index, event):
        self.texts.append(event.text)

    def to_json(self):
        return "|".join(self.texts)


def test_a_model_answers_to_its_aliases(engine: FakeEngine):
    settings = Settings(served_model_name=("a", "b"))

    assert served_names(engine, settings) == (MODEL_ID, "a", "b")
    require_model(engine, settings, "b")


@pytest.mark.parametrize(
    ("settings", "asked", "is_refused"),
    [
        (Settings(), 5, False),
        (Settings(), 6, True),
        (Settings(max_logprobs=50), 50, False),
        (Settings(max_logprobs=50), 51, True),
        (Settings(max_logprobs=0), 1, True),
        (Settings(), None, False),
    ],
    ids=["default", "above it", "raised", "above that", "none", "not asked"],
)
def test_alternatives_have_a_limit(settings, asked, is_refused):
    if not is_refused:
        require_logprobs(settings, {"logprobs": (asked, 5)})
        return
    with pytest.raises(RequestError) as caught:
        require_logprobs(settings, {"logprobs": (asked, 5)})
    assert caught.value.param == "logprobs"


def test_unknown_fields_are_refused_or_ignored():
    body = ChatCompletionRequest.model_validate({**CHAT, "foo": 1})
    refuse_unknown(Settings(unknown_fields="ignore"), body)
    with pytest.raises(RequestValidationError):
        refuse_unknown(Settings(), body)


def test_another_model_is_unknown(engine: FakeEngine):
    with pytest.raises(UnknownModelError, match=f"serves '{MODEL_ID}'"):
        require_model(engine, Settings(), "other")


def test_a_model_that_is_not_loaded_is_unavailable(engine: FakeEngine):
    engine.card, engine.detail = None, "loading weights 43%"
    with pytest.raises(EngineUnavailableError, match="43%"):
        require_card(engine, Settings(), MODEL_ID)


def test_why_an_engine_is_unavailable_names_its_state(engine: FakeEngine):
    error = unavailable(engine)

    assert error.state == "ready"
    assert "ready" in error.message


@pytest.mark.parametrize(("state", "wait"), [("starting", 2.0), ("restarting", 2.0), ("draining", 10.0)])
def test_when_to_try_again_depends_on_whether_the_engine_is_coming_or_going(engine: FakeEngine, state, wait):
    engine.state = EngineState(state)

    assert unavailable(engine).retry_after_s == wait


def test_more_choices_than_places_are_refused():
    settings = Settings(max_running=2, max_waiting=1)
    require_places(settings, 3)
    with pytest.raises(RequestError, match="at most 3"):
        require_places(settings, 4)
    with pytest.raises(RequestError, match="at most 2"):
        require_places(Settings(max_per_key=2), 3)


def test_tickets_differ_in_seed_and_are_named_after_their_request():
    first, second = (
        new_ticket("chatcmpl", CARD, CALLER, "name", Settings(request_timeout_s=9)) for _ in range(2)
    )

    assert first.answer_id == "chatcmpl-1"
    assert first.seed != second.seed
    assert first.fingerprint == second.fingerprint
    assert first.created_s == 5.5
    assert (first.caller, first.max_timeout_s) == (CALLER.name, 9)


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
