"""`EngineProcess`: one engine process as its parent holds it: channel, standard error, exit.

It starts, kills and reaps; it does not know when to do so, nor what the messages mean.
"""

import asyncio
import contextlib
import os
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self

from engine.channel import AsyncEnd, channel_pair

ENGINE_COMMAND = (sys.executable, "-P", "-m", "engine")
NUM_LINES_KEPT = 20
MAX_LINE_BYTES = 1 << 16


class EngineProcess:
    """One engine process, from its start until it is reaped."""

    def __init__(self, process: asyncio.subprocess.Process, channel: AsyncEnd, stderr: "StderrLines") -> None:
        self.channel = channel
        self.exited = asyncio.create_task(process.wait(), name=f"exit of engine process {process.pid}")
        self._process = process
        self._stderr = stderr

    @classmethod
    async def start(cls, command: Sequence[str], forward: Callable[[str], None] | None = None) -> Self:
        """Start `command` with the descriptor of its end of the channel as one more argument.

        It reads no standard input, and what it writes comes line by line to `forward` (by default
        our own standard error). It is in a session of its own, so that an interrupt typed at the
        terminal reaches the server alone. OSError if it cannot be started.
        """
        with contextlib.ExitStack() as undo, contextlib.ExitStack() as handed_over:
            ours, theirs = channel_pair()
            handed_over.callback(theirs.close)
            undo.callback(ours.close)
            channel = await AsyncEnd.open(ours)
            undo.callback(channel.abort)
            stderr, stderr_fd = await StderrLines.open(forward or write_to_stderr)
            handed_over.callback(os.close, stderr_fd)
            undo.callback(stderr.close)
            process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=stderr_fd,
                stderr=stderr_fd,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
            )
            undo.pop_all()
        return cls(process, channel, stderr)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def last_lines(self) -> tuple[str, ...]:
        """The last lines that it wrote."""
        return tuple(self._stderr.lines)

    @property
    def wrote_all(self) -> asyncio.Future[None]:
        """Done when everything it wrote has been forwarded: nobody holds the other end any more."""
        return self._stderr.ended

    @property
    def how_it_ended(self) -> str:
        """Its exit status or the name of the signal that killed it."""
        status = self._process.returncode
        if status is None:
            return "still alive"
        return f"exit status {status}" if status >= 0 else f"killed by {signal.Signals(-status).name}"

    def kill(self) -> None:
        """Send SIGKILL, unless it has ended."""
        # Not `Process.kill`: that polls first, and may so take the exit status from whoever waits for it.
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, signal.SIGKILL)

    async def reap(self) -> None:
        """Kill it unless it has ended, and return when it is reaped.

        A cancellation does not hurry this, and is raised afterwards.
        """
        self.kill()
        cancelled: asyncio.CancelledError | None = None
        while self._process.returncode is None:
            try:
                await self._process.wait()
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is not None:
            raise cancelled

    def close(self) -> None:
        """Kill it and let go of all that belongs to it, at once. May be called twice."""
        self.kill()
        self.channel.abort()
        self._stderr.close()
        self.exited.cancel()


class StderrLines(asyncio.Protocol):
    """Reads what a process writes: forwards it line by line, and keeps the last lines."""

    def __init__(self, forward: Callable[[str], None]) -> None:
        self.lines: deque[str] = deque(maxlen=NUM_LINES_KEPT)
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._forward = forward
        self._unfinished = b""
        self._transport: asyncio.BaseTransport | None = None

    @classmethod
    async def open(cls, forward: Callable[[str], None]) -> tuple[Self, int]:
        """A reader, and the descriptor to write to, which is the caller's to close."""
        read_fd, write_fd = os.pipe()
        try:
            loop = asyncio.get_running_loop()
            _, lines = await loop.connect_read_pipe(lambda: cls(forward), os.fdopen(read_fd, "rb"))
        except BaseException:
            os.close(write_fd)
            raise
        return lines, write_fd

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The pipe is open."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Some bytes came; a line without end is cut, so that it cannot grow without bound."""
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        if len(self._unfinished) > MAX_LINE_BYTES:
            lines.append(self._unfinished)
            self._unfinished = b""
        for line in lines:
            self._take(line)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  asyncio's signature
        """The pipe is closed, here or there."""
        if self._unfinished:
            self._take(self._unfinished)
            self._unfinished = b""
        if not self.ended.done():
            self.ended.set_result(None)

    def close(self) -> None:
        """Stop reading. May be called twice."""
        if self._transport is not None:
            self._transport.close()

    def _take(self, raw: bytes) -> None:
        line = raw.decode("utf-8", "replace").rstrip("\r")
        self.lines.append(line)
        self._forward(line)


def write_to_stderr(line: str) -> None:
    """Write one line to our own standard error, if there still is one."""
    with contextlib.suppress(OSError, ValueError):  # broken or closed: the engine goes on without
        sys.stderr.write(line + "\n")
        sys.stderr.flush()
