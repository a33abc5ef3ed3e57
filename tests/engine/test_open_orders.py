import asyncio

import pytest

from engine.errors import EngineCrashedError
from engine.messages import CacheCleared
from engine.open_orders import OpenOrders


def test_an_order_is_answered_by_its_number():
    async def act():
        orders = OpenOrders()
        (one, first), (other, second) = orders.open(), orders.open()
        orders.hear(CacheCleared(order_id=other.order_id, num_blocks=7))
        orders.hear(CacheCleared(order_id=one.order_id, num_blocks=0))
        return await first, await second

    assert asyncio.run(act()) == (0, 7)


def test_the_end_of_the_engine_answers_every_order():
    async def act():
        orders = OpenOrders()
        _, answer = orders.open()
        orders.end_all(EngineCrashedError("gone"))
        await answer

    with pytest.raises(EngineCrashedError, match="gone"):
        asyncio.run(act())


def test_an_answer_that_nobody_waits_for_is_dropped():
    async def act():
        orders = OpenOrders()
        order, answer = orders.open()
        answer.cancel()
        for _ in range(2):
            orders.hear(CacheCleared(order_id=order.order_id, num_blocks=1))
        return answer.cancelled()

    assert asyncio.run(act())
