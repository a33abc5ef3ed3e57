"""Several token streams read as one, in the order in which their events arrive.

A body with several prompts has a stream for each. Everything that has arrived is handed over
together, so that one write to the network carries all of it. This module knows no wire format.
"""

import asyncio
from collections.abc import Sequence

from engine import Engine, Request, RequestError, RequestRecord, TokenEvent, TokenStream


class MergedStreams:
    """The events of `streams`, with the index of the stream that each came from.

    Closing it aborts what has not ended; it may be closed twice, and must be closed once.
    """

    def __init__(self, streams: Sequence[TokenStream]) -> None:
        self._streams = tuple(streams)
        self._pumps: list[asyncio.Task[None]] = []
        self._arrived: list[tuple[int, TokenEvent]] = []
        self._wake = asyncio.Event()
        self._num_open = len(self._streams)
        self._error: Exception | None = None

    @property
    def records(self) -> tuple[RequestRecord, ...]:
        """How those of the streams went that have ended."""
        return tuple(stream.record for stream in self._streams if stream.record is not None)

    async def ready(self) -> list[tuple[int, TokenEvent]]:
        """All events since the last call, waiting for the first; none when every stream has ended.

        When a stream ends with an error, what arrived before it is handed over first.
        """
        if not self._pumps:
            self._pumps = [asyncio.create_task(self._pump(i, s)) for i, s in enumerate(self._streams)]
        while not self._arrived and self._error is None and self._num_open:
            self._wake.clear()
            await self._wake.wait()
        if not self._arrived and self._error is not None:
            raise self._error
        arrived, self._arrived = self._arrived, []
        return arrived

    async def aclose(self) -> None:
        """Stop reading, and close every stream."""
        for pump in self._pumps:
            pump.cancel()
        await asyncio.gather(*self._pumps, return_exceptions=True)
        for stream in self._streams:
            await stream.aclose()

    async def _pump(self, index: int, stream: TokenStream) -> None:
        try:
            async for event in stream:
                self._arrived.append((index, event))
                self._wake.set()
        except Exception as error:  # noqa: BLE001  the top of a task: `ready` raises it in its reader's
            self._error = self._error or error
        finally:
            self._num_open -= 1
            self._wake.set()


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
