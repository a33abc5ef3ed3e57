"""`Insight`: the engine looked into: what was counted on both sides of the border, and what is live.

Reading it changes nothing. It does not know how figures are shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from engine.clock import Clock
from engine.open_requests import OpenRequests
from engine.request_record import RequestStats
from engine.stats import EngineCounters, EngineView, PoolGauges
from engine.supervisor import Supervisor


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The engine in figures: counters since the server started, over all engine processes, and gauges.

    `ages_s` says for each request under way how long it has been open. `silent_s` is how long the
    engine's loop has not been heard of, None before the first time; `pid` is None while there is no
    engine process.
    """

    counters: EngineCounters
    pool: PoolGauges
    requests: RequestStats
    ages_s: Mapping[str, float]
    silent_s: float | None
    pid: int | None


class Insight:
    """Reads what the supervisor was told, and what the open requests have come to."""

    def __init__(self, supervisor: Supervisor, requests: OpenRequests, clock: Clock) -> None:
        self._supervisor = supervisor
        self._requests = requests
        self._clock = clock

    def stats(self) -> Stats:
        """Everything that is counted; what the engine process counts is at most a second old."""
        status = self._supervisor.status
        return Stats(
            counters=status.counters + status.stats.counters,
            pool=status.stats.pool,
            requests=self._requests.tally.to_stats(),
            ages_s=self._requests.ages_s,
            silent_s=None if status.heard_s is None else self._clock.now() - status.heard_s,
            pid=status.pid,
        )

    async def inspect(self, limit_s: float) -> EngineView | None:
        """Every live sequence, as the engine process tells between two steps.

        None where it is not ready, or has not answered within `limit_s`: then its loop is busy or stuck.
        """
        return await self._supervisor.inspect(limit_s)
