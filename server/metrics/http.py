"""`HttpTally`: HTTP requests counted by route and status, and timed by route."""

from collections import Counter
from collections.abc import Mapping

from engine import Histogram, Tally
from server.observation import Answered

HTTP_BOUNDS_S = (0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 30.0, 100.0)
"""Coarser than those of the engine's requests, since there is a histogram for each route."""


class HttpTally:
    """An observer of answered requests, which also counts those under way."""

    def __init__(self) -> None:
        self.num_under_way = 0
        self._counts: Counter[tuple[str, str, str]] = Counter()
        self._durations_s: dict[str, Tally] = {}

    @property
    def counts(self) -> Mapping[tuple[str, str, str], int]:
        """Requests answered, by method, route and status."""
        return self._counts

    @property
    def durations_s(self) -> dict[str, Histogram]:
        """How long they took, by route."""
        return {route: tally.to_histogram() for route, tally in self._durations_s.items()}

    def observe(self, answered: Answered) -> None:
        """Count one."""
        route = answered.route_label
        self._counts[answered.method_label, route, str(answered.status)] += 1
        self._durations_s.setdefault(route, Tally(HTTP_BOUNDS_S)).observe(answered.duration_s)
