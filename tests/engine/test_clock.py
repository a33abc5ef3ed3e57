import asyncio
import time

from engine.clock import SystemClock, wait_within
from tests.support.manual_clock import ManualClock


def test_the_system_clock_is_monotonic_time():
    before_s = time.monotonic()

    now_s = SystemClock().now()

    assert before_s <= now_s <= time.monotonic()


def test_the_system_clock_sleeps_at_least_as_long_as_asked():
    clock = SystemClock()
    before_s = clock.now()

    asyncio.run(clock.sleep(0.01))

    assert clock.now() - before_s >= 0.009


def test_waiting_ends_when_all_are_done():
    async def run() -> tuple[bool, bool]:
        clock = ManualClock()
        futures = [asyncio.get_running_loop().create_future() for _ in range(2)]
        waiting = asyncio.create_task(wait_within(clock, 5.0, futures))
        futures[0].set_result(None)
        await asyncio.sleep(0.001)
        was_waiting = not waiting.done()
        futures[1].cancel()
        return was_waiting, await waiting

    assert asyncio.run(run()) == (True, True)


def test_waiting_ends_with_its_time_and_cancels_nothing():
    async def run() -> tuple[bool, bool]:
        clock = ManualClock()
        future = asyncio.get_running_loop().create_future()
        waiting = asyncio.create_task(wait_within(clock, 5.0, [future]))
        await clock.advance(5.0)
        return await waiting, future.done()

    assert asyncio.run(run()) == (False, False)


def test_waiting_for_nothing_takes_no_time():
    assert asyncio.run(wait_within(ManualClock(), 5.0, [])) is True
