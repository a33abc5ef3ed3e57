"""`Supervisor`: keeps one engine process running, and expects it to die one day.

It holds three signs of life: the exit of the process, the end of the channel, and news from the
engine's loop itself. When one of them fails, the streams of that process end with an error and,
after a pause, a new process is started. It does not know what requests ask for, nor HTTP.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from engine.clock import Clock, SystemClock, wait_within
from engine.config import EngineConfig, SupervisionConfig
from engine.engine_process import ENGINE_COMMAND, EngineProcess
from engine.errors import EngineCrashedError, EngineError
from engine.messages import (
    Accepted,
    CacheCleared,
    Configure,
    Drained,
    Failed,
    Inspect,
    Inspected,
    Load,
    Loading,
    ModelCard,
    Pulse,
    Ready,
    Refused,
    ToEngine,
    ToServer,
    Updates,
)
from engine.open_requests import OpenRequests
from engine.signs_of_life import SignsOfLife
from engine.stats import EngineCounters, EngineStats, EngineView

logger = logging.getLogger(__name__)

FIRST_PAUSE_S = 1.0
LONGEST_PAUSE_S = 30.0
LEAVE_S = 2.0  # for a process that is asked to leave, before it is killed
LAST_LINES_S = 1.0  # for what a dead process wrote to come in; a child of its own may hold the pipe open


class EngineState(StrEnum):
    """Whether the engine takes requests, and if not, why."""

    STARTING = "starting"
    RESTARTING = "restarting"
    READY = "ready"
    DRAINING = "draining"
    STOPPED = "stopped"
    FAILED = "failed"


@dataclass(slots=True, kw_only=True)
class EngineStatus:
    """What is known of the engine process: the Supervisor writes it, others read.

    `generation` counts the processes from 1; `card` is that of the last process that was ready;
    `load` and `stats` what its loop said last, at `heard_s` of the supervisor's clock; `counters` are those
    of its predecessors together. `pid` is None while there is no process. `error` is why it ended for good.
    """

    state: EngineState = EngineState.STARTING
    detail: str = ""
    generation: int = 0
    card: ModelCard | None = None
    load: Load = field(default_factory=Load)
    stats: EngineStats = field(default_factory=EngineStats)
    counters: EngineCounters = field(default_factory=EngineCounters)
    heard_s: float | None = None
    pid: int | None = None
    error: EngineError | None = None


class RestartPolicy:
    """How long to wait before the next start, and when to give up.

    Of the crashes within `restart_window_s` the first is followed by a pause of 1 s, then 2, 4, 8,
    16, 30, 30 ...; the one that exceeds `max_restarts` is the last. A crash older than the window
    is forgotten, but only once an engine has been ready since: one that never gets ready, however
    long it takes to fail, is not started for ever.
    """

    def __init__(self, config: SupervisionConfig) -> None:
        self._config = config
        self._crashes_s: list[float] = []

    @property
    def num_crashes(self) -> int:
        """Crashes not forgotten."""
        return len(self._crashes_s)

    def pause_s(self, now_s: float, *, was_ready: bool) -> float | None:
        """Count a crash; how long to pause before the next start, or None to give up."""
        if was_ready:
            oldest_s = now_s - self._config.restart_window_s
            self._crashes_s = [crash_s for crash_s in self._crashes_s if crash_s > oldest_s]
        self._crashes_s.append(now_s)
        if self.num_crashes > self._config.max_restarts:
            return None
        return float(min(FIRST_PAUSE_S * 2 ** (self.num_crashes - 1), LONGEST_PAUSE_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Death:
    """How a process ended without being asked, and the requests it held."""

    how: str
    was_ready: bool
    request_ids: tuple[str, ...] = ()


class Supervisor:
    """Starts the engine process, watches it, and starts it again; one process at a time.

    Its task ends when `stop` is called, or when the engine has failed for good.
    """

    def __init__(
        self,
        config: EngineConfig,
        requests: OpenRequests,
        *,
        on_change: Callable[[], None],
        command: Sequence[str] = ENGINE_COMMAND,
        clock: Clock | None = None,
    ) -> None:
        """`on_change` is called after each change of `status.state`."""
        self.status = EngineStatus()
        self._config = config
        self._requests = requests
        self._on_change = on_change
        self._command = tuple(command)
        self._clock = clock or SystemClock()
        self._process: EngineProcess | None = None
        self._task: asyncio.Task[None] | None = None
        self._inspections: dict[int, asyncio.Future[EngineView | None]] = {}
        self._num_inspections = 0

    def start(self) -> None:
        """Begin; once only."""
        assert self._task is None
        self._task = asyncio.create_task(self._run(), name="supervisor")

    def post(self, message: ToEngine) -> None:
        """Send without waiting, as `AsyncEnd.post`; dropped when there is no process."""
        if self._process is not None:
            self._process.channel.post(message)

    async def inspect(self, limit_s: float) -> EngineView | None:
        """What is live in the engine process; None where it does not say so in time, or there is none."""
        if self._process is None or self.status.state is not EngineState.READY:
            return None
        number = self._num_inspections = self._num_inspections + 1
        answer = self._inspections[number] = asyncio.get_running_loop().create_future()
        self.post(Inspect(number=number))
        try:
            await wait_within(self._clock, limit_s, [answer])
            return answer.result() if answer.done() else None
        finally:
            del self._inspections[number]

    async def stop(self) -> None:
        """End the process, or the attempt to start one, and return when it is reaped.

        A process that is ready may leave by itself for a moment; any other is killed. May be
        called twice, and together with itself.
        """
        if self._task is not None:
            if not self._task.cancelling():
                self._task.cancel()
            await asyncio.wait({self._task})
        if self.status.state is not EngineState.FAILED:
            self._enter(EngineState.STOPPED)

    async def _run(self) -> None:
        policy = RestartPolicy(self._config.supervision)
        try:
            while self.status.error is None:
                death = await self._live()
                if self.status.error is None:
                    await self._recover(death, policy)
        except Exception:  # the top of this task: its fault must not leave callers waiting for ever
            logger.exception("supervisor failed")
            self.status.error = EngineError("the supervisor of the engine process failed; see the log")
            self._requests.end_all(self.status.error)
        self._enter(EngineState.FAILED, self.status.error.message)

    async def _recover(self, death: _Death, policy: RestartPolicy) -> None:
        """Pause after a crash, or give up."""
        pause_s = policy.pause_s(self._clock.now(), was_ready=death.was_ready)
        if pause_s is None:
            window_s = self._config.supervision.restart_window_s
            self.status.error = EngineCrashedError(
                f"the engine process crashed {policy.num_crashes} times (max_restarts is "
                f"{self._config.supervision.max_restarts} within {window_s:g} s), the last time: {death.how}"
            )
            return
        logger.info("engine restart in_s=%g crashes=%d", pause_s, policy.num_crashes)
        self._enter(EngineState.RESTARTING, f"crashed ({death.how}), starting again in {pause_s:g} s")
        await self._clock.sleep(pause_s)
        self.status.detail = "starting again"

    async def _live(self) -> _Death:
        """Run one process to its end, and end its streams with it."""
        self.status.generation += 1
        try:
            process = self._process = await EngineProcess.start(self._command)
        except OSError as error:
            stillborn = _Death(how=f"not started: {error}", was_ready=False)
            self._log_crash(stillborn, ())
            return stillborn
        logger.info("engine process started pid=%d generation=%d", process.pid, self.status.generation)
        self.status.pid = process.pid
        death: _Death | None = None
        try:
            process.channel.post(Configure(config=self._config))
            death = await self._watch(process)
            return death
        finally:
            self._process = self.status.pid = None
            self._close_accounts()
            await self._put_down(process, death)

    async def _watch(self, process: EngineProcess) -> _Death:
        signs = SignsOfLife(process, self._config.supervision, self._clock, hear=self._hear)
        try:
            await signs.wait_end()
            was_ready = self.status.state is EngineState.READY
            if self.status.error is None:
                self.status.load = Load()
                self._enter(EngineState.RESTARTING, "the engine process is at its end")
            how = await signs.last_news()
        finally:
            await signs.close()
        held = f"the engine process died ({how}) while it held this request, which is not repeated"
        request_ids = self._requests.end_all(EngineCrashedError(held))
        return _Death(how=how, was_ready=was_ready, request_ids=request_ids)

    async def _put_down(self, process: EngineProcess, death: _Death | None) -> None:
        """Reap a process that is dead or has to go, and log its death if nobody wanted it.

        If we are stopped meanwhile it is reaped all the same.
        """
        try:
            await process.channel.close()
            if self.status.state is EngineState.READY:
                await wait_within(self._clock, LEAVE_S, [process.exited])
        finally:
            try:
                await process.reap()
                await wait_within(self._clock, LAST_LINES_S, [process.wrote_all])
            finally:
                process.close()
                if death is not None and self.status.error is None:
                    self._log_crash(death, process.last_lines)

    def _close_accounts(self) -> None:
        """Keep what the process had counted, and answer for it those who wait to look into it."""
        self.status.counters += self.status.stats.counters
        self.status.stats = EngineStats()
        for answer in self._inspections.values():
            if not answer.done():
                answer.set_result(None)

    def _log_crash(self, death: _Death, last_lines: tuple[str, ...]) -> None:
        logger.error(
            "engine crashed status=%r generation=%d requests=%s stderr=%r",
            death.how,
            self.status.generation,
            ",".join(death.request_ids) or "-",
            " | ".join(last_lines),
        )

    def _hear(self, message: ToServer) -> None:
        match message:
            case Updates():
                self._take_load(message)
                self._requests.hear(message)
            case Pulse():
                self._take_load(message)
            case Inspected(number=number, view=view):
                self.status.stats = view.stats
                if number in self._inspections and not self._inspections[number].done():
                    self._inspections[number].set_result(view)
            case Accepted() | Refused() | CacheCleared() | Drained():
                self._requests.hear(message)
            case Loading(stage=stage, done=done, total=total):
                self.status.detail = (
                    f"loading {stage} {100 * done // total}%" if total else f"loading {stage}"
                )
            case Ready(card=card, load=load):
                self.status.load = load
                self.status.heard_s = self._clock.now()
                self.status.card = card
                self._enter(EngineState.READY)
                logger.info("engine ready generation=%d", self.status.generation)
                logger.debug("engine card=%s", card)
            case Failed(error=error):
                self.status.error = error

    def _take_load(self, message: Updates | Pulse) -> None:
        self.status.load = message.load
        self.status.heard_s = self._clock.now()
        if message.stats is not None:
            self.status.stats = message.stats

    def _enter(self, state: EngineState, detail: str = "") -> None:
        self.status.state = state
        self.status.detail = detail
        self._on_change()
