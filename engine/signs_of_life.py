"""`SignsOfLife`: watches one engine process: its exit, its channel, and the news of its loop.

It hands on every message, and says when and how the process came to its end. What follows from
that is the supervisor's business.
"""

import asyncio
import logging
from collections.abc import Callable

from engine.channel import ChannelError
from engine.clock import Clock, wait_within
from engine.config import SupervisionConfig
from engine.engine_process import EngineProcess
from engine.messages import Drained, Failed, Loading, Pulse, Ready, ToServer, Updates

logger = logging.getLogger(__name__)

OF_THE_LOOP = (Updates, Pulse, Loading, Ready, Drained)
"""What only a loop that goes on says."""
LATE_S = 1.0  # a timer later than this says that we were held up, not the engine
LAST_NEWS_S = 1.0  # for exit status and channel of a dying process to come in, one after the other


class SignsOfLife:
    """The watch over one process, from its start to its end.

    The engine's loop must be heard of within `start_timeout_s` until it is ready, and within
    `step_timeout_s` from then on. During start-up each `Loading` counts, so a large checkpoint on
    a slow disk is not late as long as it makes progress. Answers of the intake thread count never:
    they come from a process whose loop is stuck, too.
    """

    def __init__(
        self,
        process: EngineProcess,
        config: SupervisionConfig,
        clock: Clock,
        *,
        hear: Callable[[ToServer], None],
    ) -> None:
        """Begin to read the process's messages, each of which goes to `hear`."""
        self._process = process
        self._clock = clock
        self._hear = hear
        self._heard_s = clock.now()
        self._limit_s = config.start_timeout_s
        self._step_timeout_s = config.step_timeout_s
        self._reading = asyncio.create_task(self._read(), name="reader of the engine's messages")
        self._silence = asyncio.create_task(self._wait_for_silence(), name="watch over the engine's loop")

    async def wait_end(self) -> None:
        """Return at the first sign that the process is, or has to be, at its end."""
        signs = {self._process.exited, self._reading, self._silence}
        await asyncio.wait(signs, return_when=asyncio.FIRST_COMPLETED)

    async def last_news(self) -> str:
        """After `wait_end`: take what the process still had to tell; how it came to its end.

        A process that was silent for too long is killed, for it has nothing to tell.
        """
        dying = {self._process.exited, self._reading}
        if not any(sign.done() for sign in dying):
            self._process.kill()
            return f"killed after {self._limit_s:g} s without a sign of its loop (--step-timeout-s)"
        await wait_within(self._clock, LAST_NEWS_S, dying)
        if not self._process.exited.done():
            return "its channel ended, but it did not"
        return self._process.how_it_ended

    async def close(self) -> None:
        """Stop watching."""
        self._reading.cancel()
        self._silence.cancel()
        await asyncio.wait({self._reading, self._silence})

    async def _read(self) -> None:
        try:
            await self._process.channel.forward(self._take)
        except ChannelError as error:
            logger.error("channel broken pid=%d error=%s", self._process.pid, error)  # noqa: TRY400  the error says all
        except Exception:  # the top of this task: its end is the end of the process
            logger.exception("news of the engine could not be taken pid=%d", self._process.pid)

    def _take(self, message: ToServer) -> bool:
        """Hand a message on; whether more are to come."""
        if isinstance(message, Ready):
            self._limit_s = self._step_timeout_s
        if isinstance(message, OF_THE_LOOP):
            self._heard_s = self._clock.now()
        self._hear(message)
        return not isinstance(message, Failed)

    async def _wait_for_silence(self) -> None:
        """Return when nothing was heard for too long.

        It naps for at most a second, and counts from the start again if a nap was much too long:
        then this process was stopped or busy, and news may be waiting to be read.
        """
        while (left_s := self._heard_s + self._limit_s - self._clock.now()) > 0:
            due_s = self._clock.now() + min(left_s, LATE_S)
            await self._clock.sleep(due_s - self._clock.now())
            if self._clock.now() > due_s + LATE_S:
                self._heard_s = self._clock.now()
