"""`Outbox`: what the engine process tells the server, sent from a thread of its own.

The queue is bounded, so a server that does not read holds the loop up, which is back pressure; it
does not silence it.
"""

import logging
import queue
import threading
from collections.abc import Callable

from engine.errors import EngineCrashedError
from engine.messages import ToServer

logger = logging.getLogger(__name__)

MAX_QUEUED_MESSAGES = 1024


class Outbox:
    """A queue in front of `send`, which may block; messages leave in the order they were put."""

    def __init__(self, send: Callable[[ToServer], None]) -> None:
        self._send = send
        self._queue: queue.Queue[ToServer | None] = queue.Queue(MAX_QUEUED_MESSAGES)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._failure: Exception | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, message: ToServer) -> None:
        """Queue a message; waits while the queue is full. After the channel broke it goes nowhere.

        Raises EngineCrashedError once a message could not be sent for any other reason: half of it may
        be on the channel, so nothing that follows would be understood.
        """
        if self._failure is not None:
            raise EngineCrashedError(f"a message could not be sent: {self._failure}") from self._failure
        self._queue.put(message)

    def close(self) -> None:
        """Send what is queued, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        is_broken = False
        while (message := self._queue.get()) is not None:
            if is_broken:
                continue  # keep the queue empty until the intake sees the end of the channel
            try:
                self._send(message)
            except OSError as error:
                logger.debug("the server is gone error=%s", error)  # the intake says so too
                is_broken = True
            except Exception as error:  # the top of a thread: the loop ends the process
                logger.exception("outbox failed")
                self._failure = error
                is_broken = True
