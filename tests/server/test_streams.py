import asyncio

import pytest

from engine import (
    FinishReason,
    OverloadedError,
    Request,
    SamplingParams,
    StepError,
    TokenEvent,
    TokenStream,
)
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


class ListSink:
    """Keeps what it takes, while it is open; fails if it is to."""

    def __init__(self) -> None:
        self.is_open = True
        self.is_failing = False
        self.taken: list[list[tuple[int, str]]] = []

    def can_take(self) -> bool:
        return self.is_open

    def take(self, arrived: list[tuple[int, TokenEvent]]) -> None:
        if self.is_failing:
            raise ZeroDivisionError
        self.taken.append([(index, event.text) for index, event in arrived])


class Poured:
    """Two streams, merged, with a sink and a reader that waits already."""

    def __init__(self) -> None:
        self.sink = ListSink()
        self.streams = [TokenStream(request(name), on_abort=lambda: None) for name in "ab"]
        self.merged = MergedStreams(self.streams)
        self.merged.pour(self.sink.take, can_take=self.sink.can_take)
        self.reading = asyncio.create_task(self.merged.ready())

    def say(self, index: int, *texts: str, end: FinishReason | None = None) -> None:
        """News of a stream, told together."""
        for text in texts:
            self.streams[index].put(TokenEvent(0, text, (1,), (), 1, end))
        self.streams[index].tell()

    async def read(self) -> list[tuple[int, str]]:
        return [(index, event.text) for index, event in await self.reading]


@pytest.fixture
async def poured():
    made = Poured()
    await asyncio.sleep(0)
    yield made
    made.reading.cancel()
    await asyncio.gather(made.reading, return_exceptions=True)
    await made.merged.aclose()


async def test_what_arrives_while_the_reader_waits_goes_to_the_sink_at_once(poured: Poured):
    poured.say(1, "b", "c")
    poured.say(0, "a")

    assert poured.sink.taken == [[(1, "bc")], [(0, "a")]]
    assert not poured.reading.done()


async def test_what_the_sink_cannot_take_is_read_and_nothing_overtakes_it(poured: Poured):
    poured.sink.is_open = False
    poured.say(0, "first")
    poured.sink.is_open = True
    poured.say(0, "second")

    assert await poured.read() == [(0, "firstsecond")]
    assert poured.sink.taken == []


async def test_before_the_reader_comes_back_nothing_goes_to_the_sink(poured: Poured):
    poured.sink.is_open = False
    poured.say(0, "one")
    await poured.read()
    poured.sink.is_open = True
    poured.say(0, "two")
    poured.reading = asyncio.create_task(poured.merged.ready())

    assert await poured.read() == [(0, "two")]
    assert poured.sink.taken == []


async def test_the_last_events_of_a_stream_are_the_readers_and_the_others_go_on(poured: Poured):
    poured.streams[0].put(TokenEvent(0, "end", (1,), (), 1, FinishReason.STOP))
    poured.streams[0].end()

    assert await poured.read() == [(0, "end")]

    poured.reading = asyncio.create_task(poured.merged.ready())
    await asyncio.sleep(0)
    poured.say(1, "more")

    assert poured.sink.taken == [[(1, "more")]]


async def test_an_error_of_the_sink_is_the_readers(poured: Poured):
    poured.sink.is_failing = True
    poured.say(0, "a")

    with pytest.raises(ZeroDivisionError):
        await poured.read()


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
