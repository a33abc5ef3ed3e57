"""`OpenOrders`: what the engine process was told to do, by administrators, and has not answered yet."""

import asyncio
from itertools import count

from engine.errors import EngineError
from engine.messages import CacheCleared, ClearCache


class OpenOrders:
    """Orders by number; each is answered once, by the engine process or by the error that ended it."""

    def __init__(self) -> None:
        self._numbers = count()
        self._open: dict[int, asyncio.Future[int]] = {}

    def open(self) -> tuple[ClearCache, asyncio.Future[int]]:
        """A new order to clear the cache, and how many blocks were forgotten, once that is known."""
        order = ClearCache(order_id=next(self._numbers))
        answer: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._open[order.order_id] = answer
        return order, answer

    def hear(self, message: CacheCleared) -> None:
        """Take an answer; one that nobody waits for any more is dropped."""
        answer = self._open.pop(message.order_id, None)
        if answer is not None and not answer.done():
            answer.set_result(message.num_blocks)

    def end_all(self, error: EngineError) -> None:
        """Answer every order with a copy of `error`."""
        for answer in self._open.values():
            if not answer.done():
                answer.set_exception(error.fresh())
        self._open.clear()
