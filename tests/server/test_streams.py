import asyncio

import pytest

from engine import FinishReason, OverloadedError, Request, SamplingParams, StepError
from server.streams import MergedStreams, open_streams
from tests.support.fake_engine import FakeEngine, Script

pytestmark = pytest.mark.anyio


def request(request_id: str = "r", num_choices: int = 1) -> Request:
    sampling = SamplingParams(max_tokens=5, seed=0)
    return Request(request_id=request_id, prompt_ids=(1,), sampling=sampling, num_choices=num_choices)


async def read_all(streams: MergedStreams) -> list[tuple[int, str]]:
    told = []
    while arrived := await streams.ready():
        told.extend((index, event.text) for index, event in arrived)
    return told


async def test_all_events_of_all_streams_come_with_their_index(engine: FakeEngine):
    streams = await open_streams(engine, [request("a"), request("b")])
    told = await read_all(streams)

    assert [text for index, text in told if index == 0] == ["Hello", " wörld", " 🙂"]
    assert [text for index, text in told if index == 1] == ["Hello", " wörld", " 🙂"]


async def test_what_has_arrived_is_handed_over_together(engine: FakeEngine):
    streams = await open_streams(engine, [request("a", num_choices=2), request("b")])
    arrived = await streams.ready()
    await streams.aclose()

    assert len(arrived) > 1


async def test_after_the_end_there_is_nothing_more(engine: FakeEngine):
    streams = await open_streams(engine, [request()])
    await read_all(streams)

    assert await streams.ready() == []


async def test_an_error_comes_after_the_events_before_it(engine: FakeEngine):
    engine.script = Script(pieces=("one", "two"), error=StepError("broke"))
    streams = await open_streams(engine, [request()])
    told = [event.text for _, event in await streams.ready()]

    assert told == ["one", "two"]
    with pytest.raises(StepError, match="broke"):
        await streams.ready()


async def test_the_last_event_carries_the_finish_reason(engine: FakeEngine):
    engine.script = Script(pieces=("x",), finish_reason=FinishReason.LENGTH)
    streams = await open_streams(engine, [request()])

    assert [event.finish_reason for _, event in await streams.ready()] == [FinishReason.LENGTH]


async def test_closing_aborts_every_stream(engine: FakeEngine):
    engine.script = Script(is_endless=True)
    streams = await open_streams(engine, [request("a"), request("b")])
    await streams.ready()
    await streams.aclose()

    assert engine.open_ids == set()
    assert sorted(engine.closed_ids) == ["a", "b"]


async def test_closing_twice_is_closing_once(engine: FakeEngine):
    streams = await open_streams(engine, [request("a")])
    await streams.aclose()
    await streams.aclose()

    assert engine.closed_ids == ["a"]


async def test_closing_before_the_first_event_aborts_too(engine: FakeEngine):
    streams = await open_streams(engine, [request("a")])
    await streams.aclose()

    assert engine.open_ids == set()


async def test_closing_leaves_no_task_behind(engine: FakeEngine):
    engine.script = Script(is_endless=True)
    before = asyncio.all_tasks()
    streams = await open_streams(engine, [request("a"), request("b")])
    await streams.ready()
    await streams.aclose()

    assert asyncio.all_tasks() == before


async def test_of_several_requests_all_are_taken_or_none(engine: FakeEngine):
    engine.max_open = 1
    with pytest.raises(OverloadedError):
        await open_streams(engine, [request("a"), request("b")])

    assert engine.open_ids == set()
    assert engine.closed_ids == ["a"]


async def test_a_caller_that_is_cancelled_meanwhile_leaves_nothing_open(engine: FakeEngine, monkeypatch):
    submit, both_are_taken = engine.submit, asyncio.Event()

    async def submit_the_first_only(asked: Request):
        stream = await submit(asked)
        if asked.request_id == "b":
            both_are_taken.set()
            await asyncio.Event().wait()
        return stream

    monkeypatch.setattr(engine, "submit", submit_the_first_only)
    opening = asyncio.create_task(open_streams(engine, [request("a"), request("b")]))
    await both_are_taken.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening

    assert engine.closed_ids == ["a"]


async def test_no_requests_are_no_streams(engine: FakeEngine):
    streams = await open_streams(engine, [])

    assert await streams.ready() == []
