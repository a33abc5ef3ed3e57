"""`StepLoop`: admit, plan, execute, commit, send, until the channel ends.

The main thread of the engine process. It knows no feature, no model and no tensor: a plan goes to
the runner it was given, and what comes back goes to the scheduler.
"""

import logging
from collections import deque
from dataclasses import dataclass
from typing import Protocol

from engine.errors import EngineCrashedError, StepError
from engine.intake import Intake, Stop, Work
from engine.messages import (
    Abort,
    CacheCleared,
    ClearCache,
    Drain,
    Drained,
    Finish,
    Inspect,
    Inspected,
    Load,
    Pulse,
    ToServer,
    Updates,
)
from engine.metering import StepMeter
from engine.plan import Runner, StepHandle, StepPlan
from engine.scheduling.scheduler import Scheduler

logger = logging.getLogger(__name__)

IDLE_WAIT_S = 1.0
MAX_FAILED_STEPS = 3


class Outgoing(Protocol):
    """Where messages leave."""

    def put(self, message: ToServer) -> None:
        """Queue a message for the server."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopParts:
    """What a loop drives."""

    intake: Intake
    scheduler: Scheduler
    runner: Runner
    outbox: Outgoing
    meter: StepMeter


class StepLoop:
    """Runs steps while there is work, and tells of each; otherwise shows once a second that it lives."""

    def __init__(self, parts: LoopParts, steps_in_flight: int) -> None:
        self._intake = parts.intake
        self._scheduler = parts.scheduler
        self.runner = parts.runner
        self._outbox = parts.outbox
        self._meter = parts.meter
        self._steps_in_flight = steps_in_flight
        self._in_flight: deque[StepHandle] = deque()
        self._num_failed_steps = 0
        self._is_draining = False
        self._is_stopping = False

    def run(self) -> None:
        """Run until the channel ends.

        Raises EngineCrashedError when steps keep failing, or when there is work that nobody plans:
        a clean start is simpler than a doubtful state.
        """
        told = Load()
        while True:
            is_idle = not self._scheduler.has_work and not self._in_flight
            self._admit(self._intake.take(wait_s=IDLE_WAIT_S if is_idle else 0))
            if self._is_stopping:
                return
            updates = self._meter.tell(self._step())
            if updates.sequence_ids or updates.failures or updates.waited_s:
                self._outbox.put(updates)
                told = updates.load
            elif is_idle or updates.stats is not None or updates.load != told:
                self._outbox.put(Pulse(load=updates.load, stats=updates.stats))
                told = updates.load
            if self._is_draining and not self._scheduler.has_work and not self._in_flight:
                self._outbox.put(Drained())
                self._is_draining = False

    def _admit(self, work: list[Work]) -> None:
        for piece in work:
            match piece:
                case tuple():
                    self._scheduler.add(piece)
                    self._meter.queued(piece)
                case Abort(request_id=request_id):
                    self._scheduler.abort(request_id)
                case Finish(request_id=request_id, choice=choice):
                    self._scheduler.finish(request_id, choice)
                case ClearCache(order_id=order_id):
                    num_blocks = self._scheduler.clear_cache()
                    self._outbox.put(CacheCleared(order_id=order_id, num_blocks=num_blocks))
                case Inspect(number=number):
                    self._outbox.put(Inspected(number=number, view=self._meter.view()))
                case Drain():
                    self._is_draining = True
                case Stop():
                    self._is_stopping = True

    def _step(self) -> Updates:
        """Begin one step, and finish the oldest once as many as allowed are in flight."""
        plan = self._scheduler.plan()
        if plan.chunks:
            self._meter.begun(plan)
            try:
                self._in_flight.append(self.runner.begin(plan))
            except Exception as error:  # noqa: BLE001 - the loop's boundary: others go on
                self._meter.failed(is_newest=True)
                return self._fail(plan, error)
        elif not self._in_flight and self._scheduler.has_work:
            raise EngineCrashedError(
                f"the scheduler plans nothing though there is work: {self._scheduler.load}"
            )
        if self._in_flight and (len(self._in_flight) == self._steps_in_flight or not plan.chunks):
            return self._finish(self._in_flight.popleft())
        return Updates(load=self._scheduler.load)

    def _finish(self, handle: StepHandle) -> Updates:
        try:
            result = self.runner.finish(handle)
        except Exception as error:  # noqa: BLE001 - as above
            self._meter.failed(is_newest=False)
            return self._fail(handle.plan, error)
        self._meter.finished(handle.plan)
        self._num_failed_steps = 0
        return self._scheduler.commit(handle.plan, result)

    def _fail(self, plan: StepPlan, error: Exception) -> Updates:
        self._num_failed_steps += 1
        logger.error(
            "step failed chunks=%d tokens=%d in_a_row=%d", len(plan.chunks), plan.num_tokens,
            self._num_failed_steps, exc_info=error,
        )  # fmt: skip
        if isinstance(error, EngineCrashedError) or self._num_failed_steps >= MAX_FAILED_STEPS:
            raise EngineCrashedError(f"{self._num_failed_steps} steps failed in a row") from error
        return self._scheduler.fail(plan, StepError(f"the step failed: {type(error).__name__}: {error}"))
