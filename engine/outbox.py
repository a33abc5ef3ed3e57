"""`Outbox`: what the engine process tells the server, sent at once where the channel takes it at once.

What it does not take waits in a bounded queue for a thread that sends it. So the loop seldom wakes
anybody but the server, and a server that does not read holds the loop up, which is back pressure; it
does not silence it.
"""

import logging
import queue
import threading
from typing import Protocol

from engine.channel import to_frame
from engine.errors import EngineCrashedError
from engine.messages import ToServer

logger = logging.getLogger(__name__)

MAX_QUEUED_MESSAGES = 1024


class Writer(Protocol):
    """Where frames leave."""

    def offer(self, frame: bytes) -> int:
        """Take as much of the frame as goes without waiting; how many bytes that were."""
        ...

    def write(self, frame: bytes) -> None:
        """Take all of it, waiting if need be."""
        ...


class Outbox:
    """A queue in front of a writer; messages of a thread leave in the order in which it put them.

    Loop and intake both put. The lock is held for as long as it takes to look at the backlog and to
    offer a frame, never while anybody waits for the server.
    """

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self._lock = threading.Lock()
        self._backlog = 0  # frames that wait for the thread, or that it is sending
        self._queue: queue.Queue[bytes | None] = queue.Queue(MAX_QUEUED_MESSAGES)
        self._thread = threading.Thread(target=self._run, name="outbox", daemon=True)
        self._is_broken = False
        self._failure: Exception | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def put(self, message: ToServer) -> None:
        """Send a message, or queue it; waits while the queue is full. After the channel broke it goes nowhere.

        Raises EngineCrashedError once a message could not be sent for any other reason: half of it may
        be on the channel, so nothing that follows would be understood.
        """
        if self._failure is None:
            try:
                self._put(to_frame(message))
            except Exception as error:  # as at the top of the thread: the loop ends the process
                logger.exception("outbox failed")
                self._failure = error
        if self._failure is not None:
            raise EngineCrashedError(f"a message could not be sent: {self._failure}") from self._failure

    def close(self) -> None:
        """Send what is queued, and end the thread."""
        self._queue.put(None)
        self._thread.join()

    def _put(self, frame: bytes) -> None:
        with self._lock:
            if not self._backlog:
                num_taken = self._offer(frame)
                if num_taken < len(frame):
                    self._backlog = 1
                    self._queue.put_nowait(
                        frame[num_taken:]
                    )  # nothing may come in between; the queue is empty
                return
            self._backlog += 1
        self._queue.put(frame)

    def _offer(self, frame: bytes) -> int:
        if self._is_broken:
            return len(frame)
        try:
            return self._writer.offer(frame)
        except OSError as error:
            self._break(error)
            return len(frame)

    def _run(self) -> None:
        while (frame := self._queue.get()) is not None:
            if not self._is_broken:  # else keep the queue empty until the intake sees the end of the channel
                try:
                    self._writer.write(frame)
                except OSError as error:
                    self._break(error)
                except Exception as error:  # the top of a thread: the loop ends the process
                    logger.exception("outbox failed")
                    self._failure = error
                    self._is_broken = True
            with self._lock:
                self._backlog -= 1

    def _break(self, error: OSError) -> None:
        logger.debug("the server is gone error=%s", error)  # the intake says so too
        self._is_broken = True
