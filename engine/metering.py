"""`StepMeter`: times steps and queues beside the loop, and lets the counters travel once a second.

It knows neither what a step computes nor how messages leave: it is told of each step, and adds what
it has to say to the message that leaves anyway.
"""

import time
from collections import deque
from collections.abc import Callable, Iterable

from engine.messages import Updates
from engine.plan import StepPlan
from engine.scheduling.inspection import gauges_of, view_of
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import Sequence
from engine.stats import (
    ROW_BOUNDS,
    STEP_BOUNDS_S,
    TOKEN_BOUNDS,
    EngineCounters,
    EngineStats,
    EngineView,
    Tally,
)

INTERVAL_S = 1.0


class StepMeter:
    """Told by the loop what it does; `now` gives seconds that never go back."""

    def __init__(self, scheduler: Scheduler, now: Callable[[], float] = time.perf_counter) -> None:
        self._scheduler = scheduler
        self._now = now
        self._step_s = Tally(STEP_BOUNDS_S)
        self._step_rows = Tally(ROW_BOUNDS)
        self._step_tokens = Tally(TOKEN_BOUNDS)
        self._num_failed = 0
        self._begun_at_s: deque[float] = deque()
        self._queued_since_s: dict[int, float] = {}
        self._waited_s: list[tuple[int, float]] = []
        self._due_s = now() + INTERVAL_S

    def queued(self, sequences: Iterable[Sequence]) -> None:
        """Sequences have come into the queue."""
        now_s = self._now()
        for sequence in sequences:
            self._queued_since_s[sequence.sequence_id] = now_s

    def begun(self, plan: StepPlan) -> None:
        """A step is about to be computed; for some of its sequences it is the first."""
        now_s = self._now()
        self._begun_at_s.append(now_s)
        if not self._queued_since_s:
            return
        for chunk in plan.chunks:
            since_s = self._queued_since_s.pop(chunk.sequence_id, None)
            if since_s is not None:
                self._waited_s.append((chunk.sequence_id, now_s - since_s))

    def finished(self, plan: StepPlan) -> None:
        """The oldest step that was begun is computed."""
        self._step_s.observe(self._now() - self._begun_at_s.popleft())
        self._step_rows.observe(len(plan.chunks))
        self._step_tokens.observe(sum([chunk.stop - chunk.start for chunk in plan.chunks]))

    def failed(self, *, is_newest: bool) -> None:
        """A step could not be computed: the newest that was begun, or the oldest."""
        if is_newest:
            self._begun_at_s.pop()
        else:
            self._begun_at_s.popleft()
        self._num_failed += 1

    def tell(self, updates: Updates) -> Updates:
        """`updates`, with what there is to add: who has waited how long, and the counters once they are due."""
        is_due = self._now() >= self._due_s
        if not is_due and not self._waited_s:
            return updates
        waited_s, self._waited_s = tuple(self._waited_s), []
        return updates._replace(waited_s=waited_s, stats=self._take_stats() if is_due else None)

    def view(self) -> EngineView:
        """Everything live, now."""
        sequences = tuple(view_of(sequence) for sequence in self._scheduler.live)
        return EngineView(sequences=sequences, stats=self.stats())

    def stats(self) -> EngineStats:
        """All counts so far, and the pool as it is."""
        load = self._scheduler.load
        counters = EngineCounters(
            num_failed_steps=self._num_failed,
            num_preempted=load.num_preemptions,
            prefix=self._scheduler.prefix_counters,
            step_s=self._step_s.to_histogram(),
            step_rows=self._step_rows.to_histogram(),
            step_tokens=self._step_tokens.to_histogram(),
        )
        return EngineStats(counters=counters, pool=gauges_of(self._scheduler.pool, self._scheduler.live))

    def _take_stats(self) -> EngineStats:
        """The stats that travel; the next ones are due in a second. Who left the queue unserved is forgotten."""
        self._due_s = self._now() + INTERVAL_S
        if self._queued_since_s:
            live = {sequence.sequence_id for sequence in self._scheduler.live}
            self._queued_since_s = {key: s for key, s in self._queued_since_s.items() if key in live}
        return self.stats()
