"""A clock that stands still until a test moves it."""

import asyncio


class ManualClock:
    """Has the interface of `engine.clock.Clock`."""

    def __init__(self) -> None:
        self._now_s = 100.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []
        self.sleeps_s: list[float] = []

    def now(self) -> float:
        return self._now_s

    async def sleep(self, duration_s: float) -> None:
        self.sleeps_s.append(duration_s)
        if duration_s <= 0:
            return
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + duration_s, waker))
        await waker

    def is_awaited(self, duration_s: float) -> bool:
        """Whether somebody sleeps until exactly `duration_s` from now."""
        due_s = self._now_s + duration_s
        return any(abs(until_s - due_s) < 1e-6 and not waker.done() for until_s, waker in self._sleepers)

    def jump(self, duration_s: float) -> None:
        """Move the time on at once, and wake those whose time has come."""
        self._now_s += duration_s
        for until_s, waker in self._sleepers:
            if until_s <= self._now_s + 1e-9 and not waker.done():
                waker.set_result(None)
        self._sleepers = [sleeper for sleeper in self._sleepers if not sleeper[1].done()]

    async def advance(self, duration_s: float, step_s: float = 0.25) -> None:
        """Move the time on in small steps, letting everybody act after each."""
        left_s = duration_s
        await self._let_act()
        while left_s > 1e-9:
            self.jump(min(step_s, left_s))
            left_s -= step_s
            await self._let_act()

    async def _let_act(self) -> None:
        for _ in range(5):
            await asyncio.sleep(0)
