"""`Clock`: where time comes from, so that tests can make it."""

import asyncio
import time
from collections.abc import Iterable
from typing import Any, Protocol


class Clock(Protocol):
    """Tells the time and waits for it."""

    def now(self) -> float:
        """Seconds since some moment; never goes back."""
        ...

    async def sleep(self, duration_s: float) -> None:
        """Return after that many seconds, or later."""
        ...


class SystemClock:
    """The machine's own time."""

    def now(self) -> float:
        """Seconds since some moment; never goes back."""
        return time.monotonic()

    async def sleep(self, duration_s: float) -> None:
        """Return after that many seconds, or later."""
        await asyncio.sleep(duration_s)


async def wait_within(
    clock: Clock, limit_s: float, futures: Iterable[asyncio.Future[Any]]
) -> bool:  # Any: results are not looked at
    """Wait until all `futures` are done, or for `limit_s`; whether they are done. None is cancelled."""
    waiting = set(futures)
    timer = asyncio.ensure_future(clock.sleep(limit_s))
    try:
        while waiting and not timer.done():
            await asyncio.wait({*waiting, timer}, return_when=asyncio.FIRST_COMPLETED)
            waiting = {future for future in waiting if not future.done()}
    finally:
        timer.cancel()
    return not waiting
