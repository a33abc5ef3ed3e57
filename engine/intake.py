"""`Intake`: reads the channel on its own thread, and hands over what the loop is to act on.

It sorts only, so that an abort passes at once; it never waits for the loop, and touches neither
queues nor blocks. What a request needs before it can be scheduled is made ready here.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass

from engine.cache.layout import CacheLayout
from engine.errors import ContextLengthError, RequestError
from engine.messages import (
    Abort,
    Accepted,
    ClearCache,
    Drain,
    Finish,
    Inspect,
    Refused,
    Submit,
    ToEngine,
    ToServer,
)
from engine.request import Request
from engine.scheduling.sequence import Sequence, make_sequences

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The server closed the channel, or is gone."""


Work = tuple[Sequence, ...] | Abort | Finish | ClearCache | Inspect | Drain | Stop


class Intake:
    """Turns messages into work for the loop.

    `receive` blocks, and answers None at the end of the channel.
    """

    def __init__(
        self,
        receive: Callable[[], ToEngine | None],
        send: Callable[[ToServer], None],
        layout: CacheLayout,
        vocab_size: int,
        *,
        has_prefix_cache: bool = True,
    ) -> None:
        self._receive = receive
        self._send = send
        self._layout = layout
        self._vocab_size = vocab_size
        self._has_prefix_cache = has_prefix_cache
        self._queue: queue.SimpleQueue[Work] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        """Start the thread, which ends with the channel."""
        self._thread.start()

    def take(self, wait_s: float) -> list[Work]:
        """All work that has arrived, in order; waits up to `wait_s` seconds for the first piece."""
        work: list[Work] = []
        try:
            work.append(self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait())
            while True:
                work.append(self._queue.get_nowait())
        except queue.Empty:
            return work

    def _run(self) -> None:
        try:
            while (message := self._receive()) is not None:
                self._sort(message)
        except Exception:  # the top of a thread: without its reader the process is of no use
            logger.exception("intake failed")
        finally:
            self._queue.put(Stop())

    def _sort(self, message: ToEngine) -> None:
        match message:
            case Submit(request=request, first_sequence_id=first_sequence_id):
                self._submit(request, first_sequence_id)
            case Abort() | Finish() | ClearCache() | Inspect() | Drain():
                self._queue.put(message)
            case _:
                logger.error("message ignored kind=%s", type(message).__name__)

    def _submit(self, request: Request, first_sequence_id: int) -> None:
        try:
            self._check(request)
        except RequestError as error:
            self._send(Refused(request_id=request.request_id, error=error))
            return
        tables = [self._layout.new_tables() for _ in range(request.num_choices)]
        self._send(Accepted(request_id=request.request_id))
        sequences = make_sequences(
            request, first_sequence_id, tables, has_prefix_cache=self._has_prefix_cache
        )
        self._queue.put(sequences)

    def _check(self, request: Request) -> None:
        """The last word on what can be computed here, whatever the server let through."""
        if request.max_total_tokens > self._layout.max_context:
            raise ContextLengthError(
                f"prompt and max_tokens are {request.max_total_tokens} tokens together; "
                f"at most {self._layout.max_context} fit"
            )
        request.refuse_foreign_ids(self._vocab_size)
