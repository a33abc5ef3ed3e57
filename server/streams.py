"""Several token streams read as one, in the order in which their events arrive.

A body with several prompts has a stream for each. Everything that has arrived is handed over
together, so that one write to the network carries all of it. This module knows no wire format.
"""

import asyncio
from collections.abc import Callable, Sequence

from engine import Engine, Request, RequestError, RequestRecord, TokenEvent, TokenStream

Arrived = list[tuple[int, TokenEvent]]


class MergedStreams:
    """The events of `streams`, with the index of the stream that each came from.

    Closing it aborts what has not ended; it may be closed twice, and must be closed once.
    """

    def __init__(self, streams: Sequence[TokenStream]) -> None:
        self._streams = tuple(streams)
        self._open = dict(enumerate(self._streams))
        self._wake = asyncio.Event()
        self._is_waiting = False
        self._take_now: Callable[[Arrived], None] | None = None
        self._can_take: Callable[[], bool] = bool
        self._error: Exception | None = None
        for stream in self._streams:
            stream.listen(self._hear)

    @property
    def records(self) -> tuple[RequestRecord, ...]:
        """How those of the streams went that have ended."""
        return tuple(stream.record for stream in self._streams if stream.record is not None)

    async def ready(self) -> Arrived:
        """All events since the last call, waiting for the first; none when every stream has ended.

        When a stream ends with an error, what arrived before it is handed over first.
        """
        while True:
            self._wake.clear()
            arrived = [(index, event) for index in tuple(self._open) for event in self._take(index)]
            if arrived:
                return arrived
            if self._error is not None:
                raise self._error
            if not self._open:
                return []
            self._is_waiting = True
            try:
                await self._wake.wait()
            finally:
                self._is_waiting = False

    def pour(self, take: Callable[[Arrived], None], *, can_take: Callable[[], bool]) -> None:
        """Have `take` called with events where they arrive, instead of waking who waits in `ready` for them.

        That is done while someone waits there and `can_take` says so, but never with the last events of a
        stream. What `take` raises is raised in the reader.
        """
        self._take_now, self._can_take = take, can_take

    async def aclose(self) -> None:
        """Close every stream."""
        for stream in self._streams:
            await stream.aclose()

    def _hear(self) -> None:
        """A stream has news. A reader that was woken, and has not come yet, has to read first."""
        take = self._take_now
        if take is None or not self._is_waiting or self._wake.is_set() or not self._can_take():
            self._wake.set()
            return
        for stream in self._open.values():
            if stream.is_over:
                self._wake.set()
                return
        try:
            take([(index, event) for index, stream in self._open.items() for event in stream.take()])
        except Exception as error:  # noqa: BLE001  the top of a callback: the reader raises it
            self._error = error
            self._wake.set()

    def _take(self, index: int) -> Sequence[TokenEvent]:
        """What has arrived of one stream; its error is kept, and it is let go at its end."""
        stream = self._open[index]
        arrived: Sequence[TokenEvent] = ()
        try:
            arrived = stream.take()
        except Exception as error:  # noqa: BLE001  as it would be raised in who iterates
            self._error = self._error or error
        if stream.is_exhausted:
            del self._open[index]
        return arrived


async def open_streams(
    engine: Engine, requests: Sequence[Request], *, grammar_param: str | None = None
) -> MergedStreams:
    """Submit all of `requests`, or none: what the engine took is closed if it refuses another.

    Raises the first refusal; one that blames a grammar names `grammar_param`, from which it was made.
    Nothing stays open either if the caller is cancelled meanwhile.
    """
    submitting = [asyncio.ensure_future(engine.submit(request)) for request in requests]
    try:
        await asyncio.gather(*submitting, return_exceptions=True)
        return MergedStreams([task.result() for task in submitting])
    except BaseException as error:
        outcomes = await asyncio.gather(*submitting, return_exceptions=True)
        await MergedStreams([taken for taken in outcomes if not isinstance(taken, BaseException)]).aclose()
        if isinstance(error, RequestError) and error.param == "grammar":
            raise RequestError(error.message, grammar_param) from error
        raise
