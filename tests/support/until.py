"""Bounded waiting on real processes."""

import asyncio
from collections.abc import Callable

WAIT_S = 15.0


async def until(condition: Callable[[], object], what: str = "") -> None:
    """Return once `condition()` holds; TimeoutError after a generous while."""
    loop = asyncio.get_running_loop()
    end_s = loop.time() + WAIT_S
    while not condition():
        if loop.time() > end_s:
            raise TimeoutError(what or "waited in vain")
        await asyncio.sleep(0.002)
