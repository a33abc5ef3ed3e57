import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.errors import EngineCrashedError
from engine.request import FinishReason
from engine.stream import TokenEvent, TokenStream
from engine.text.token_logprob import TokenLogprob
from tests.support.new_request import new_request


def event(text: str, *, choice: int = 0, count: int = 0, end: FinishReason | None = None) -> TokenEvent:
    ids = tuple(text.encode())
    logprobs = tuple(
        TokenLogprob(token_id=i, text=chr(i), token_bytes=bytes([i]), logprob=-float(i)) for i in ids
    )
    return TokenEvent(
        choice=choice,
        text=text,
        token_ids=ids,
        logprobs=logprobs,
        num_output_tokens=count,
        finish_reason=end,
    )


class Aborts:
    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


def with_stream(act: Callable[[TokenStream, Aborts], Awaitable[object]]) -> object:
    async def run() -> object:
        aborts = Aborts()
        return await act(TokenStream(new_request(), on_abort=aborts), aborts)

    return asyncio.run(run())


def test_events_come_in_order_and_then_the_end():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        found = []
        for count, text in enumerate("abc", 1):
            stream.put(event(text, count=count))
            found.append(await anext(stream))
        stream.end()
        return found, [rest async for rest in stream], aborts.count

    expected = [event(text, count=count) for count, text in enumerate("abc", 1)]
    assert with_stream(act) == (expected, [], 0)


def test_events_of_a_choice_that_wait_together_are_read_as_one():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        stream.put(event("a", choice=1, count=1))
        stream.put(event("x", choice=0, count=1))
        stream.put(event("b", choice=1, count=2))
        stream.put(event("c", choice=1, count=3, end=FinishReason.STOP))
        stream.end()
        return [found async for found in stream]

    assert with_stream(act) == [
        event("abc", choice=1, count=3, end=FinishReason.STOP),
        event("x", choice=0, count=1),
    ]


def test_tokens_that_are_read_as_one_event_keep_where_their_text_begins():
    async def act(stream: TokenStream, _: Aborts):
        stream.put(event("a")._replace(text_offsets=(0,)))
        stream.put(event("bc")._replace(text_offsets=(1, 2)))
        return stream.take()

    (merged,) = with_stream(act)
    assert merged.text_offsets == (0, 1, 2)


def test_an_error_is_raised_once_after_the_events_before_it():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        stream.put(event("a"))
        stream.end(EngineCrashedError("gone"))
        first = await anext(stream)
        with pytest.raises(EngineCrashedError, match="gone"):
            await anext(stream)
        return first, [rest async for rest in stream]

    assert with_stream(act) == (event("a"), [])


def test_a_waiting_reader_is_woken_by_news():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        stream.put(event("a"))
        stream.tell()
        return await reading

    assert with_stream(act) == event("a")


def test_a_reader_cancelled_while_it_waits_loses_nothing():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        reading = asyncio.create_task(anext(stream))
        await asyncio.sleep(0)
        stream.put(event("a"))
        stream.tell()
        reading.cancel()
        await asyncio.wait({reading})
        return reading.cancelled(), await anext(stream)

    assert with_stream(act) == (True, event("a"))


def test_closing_an_open_stream_aborts_once_and_drops_what_waits():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        stream.put(event("a"))
        await stream.aclose()
        await stream.aclose()
        return [found async for found in stream], aborts.count

    assert with_stream(act) == ([], 1)


@pytest.mark.parametrize("error", [None, EngineCrashedError("gone")], ids=["finished", "failed"])
def test_closing_an_ended_stream_aborts_nothing_and_raises_nothing(error: EngineCrashedError | None):
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        stream.put(event("a"))
        stream.end(error)
        await stream.aclose()
        return [found async for found in stream], aborts.count

    assert with_stream(act) == ([], 0)


def test_closing_wakes_a_reader_in_another_task():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        reading = asyncio.create_task(anext(stream, None))
        await asyncio.sleep(0)
        await stream.aclose()
        return await reading

    assert with_stream(act) is None


def test_closing_works_in_a_task_that_is_cancelled_again_and_again():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        async def read() -> None:
            try:
                await anext(stream)
            finally:
                asyncio.current_task().cancel()
                await stream.aclose()

        reading = asyncio.create_task(read())
        await asyncio.sleep(0)
        reading.cancel()
        await asyncio.wait({reading})
        return aborts.count

    assert with_stream(act) == 1


def test_nothing_is_put_behind_the_end():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        stream.end()
        with pytest.raises(AssertionError):
            stream.put(event("a"))
        with pytest.raises(AssertionError):
            stream.end()

    with_stream(act)


def test_what_waits_is_taken_without_waiting_and_its_listener_is_called_when_told_and_at_the_end():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        calls: list[bool] = []
        stream.listen(lambda: calls.append(stream.is_over))
        nothing = stream.take()
        stream.put(event("a", count=1))
        stream.put(event("b", count=2))
        stream.put(event("x", choice=1, count=1))
        stream.tell()
        taken = stream.take()
        stream.end()
        return nothing, taken, stream.take(), calls

    merged = [event("ab", count=2), event("x", choice=1, count=1)]
    assert with_stream(act) == ([], merged, [], [False, True])


def test_an_error_is_taken_once_after_the_events_before_it():
    async def act(stream: TokenStream, aborts: Aborts) -> object:
        stream.put(event("a"))
        stream.end(EngineCrashedError("gone"))
        taken, was_exhausted = stream.take(), stream.is_exhausted
        with pytest.raises(EngineCrashedError, match="gone"):
            stream.take()
        return taken, was_exhausted, stream.take(), stream.is_exhausted

    assert with_stream(act) == ([event("a")], False, [], True)
