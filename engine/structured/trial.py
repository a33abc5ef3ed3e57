"""`Trial`: grammars compiled first in a process of their own, which may die of it.

A short grammar can ask the library for hours of work, gigabytes of memory, or a recursion deeper than any
stack: what would end this process, or occupy it for good, ends the other. It knows no requests.

Tried: the library's own bounds alone. They hold neither for `multipleOf` 999983 (minutes), nor for twelve
patterns in an `allOf` (9 s), nor for a chain of 4,000 rules, at which the stack overflows.
"""

import contextlib
import json
import logging
import os
import resource
import select
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

from engine.errors import EngineError, OverloadedError, RequestError
from engine.messages import Vocabulary

if TYPE_CHECKING:
    from engine.structured.library import Library

logger = logging.getLogger(__name__)

COMMAND = (sys.executable, "-P", "-m", "engine.structured.trial")
MAX_START_S = 30.0
MAX_TRIAL_S = 3.0
MAX_IDLE_S = 60.0
GRACE_S = 7.0
"""How much later than the process itself the owner gives it up, should it neither answer nor die."""
MAX_TRIAL_BYTES = 1 << 30
STACK_BYTES = 1 << 20
"""Less than any other thread has, so that what fits in there fits wherever it is compiled again."""
IDLE_STATUS, FAILED_STATUS = 0, 70
GRAMMARS_FAULTS = (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS)
"""How a stack or memory that does not suffice ends the process."""


class _Model(NamedTuple):
    """What the other process has to know of the model; a byte of a token is a character."""

    tokens: list[str]
    special_ids: Sequence[int]
    vocab_size: int
    eos_ids: Sequence[int]


class Trial:
    """One process, started when it is needed and ended by idleness. Belongs to one thread at a time."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int, eos_ids: tuple[int, ...]) -> None:
        tokens = [token.decode("latin-1") for token in vocabulary.token_bytes]
        self._model = _Model(tokens, vocabulary.special_ids, vocab_size, eos_ids)
        self._process: subprocess.Popen[bytes] | None = None
        self._end: weakref.finalize[[subprocess.Popen[bytes]], Trial] | None = None
        self._is_ready = False

    def refusal(self, grammar: str) -> EngineError | None:
        """Why a grammar cannot be compiled; None where it can. Takes `MAX_TRIAL_S` at most, and the start.

        RequestError where the grammar is to blame, OverloadedError where it may be tried again.
        """
        try:
            return self._refusal(self._ready_process(), grammar)
        except (EOFError, OSError):  # it went idle just now
            return self._refusal(self._ready_process(), grammar)

    def _refusal(self, process: subprocess.Popen[bytes], grammar: str) -> EngineError | None:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            with _bounded(process, MAX_TRIAL_S + GRACE_S):
                _write(process.stdin, grammar)
                message = _read(process.stdout)
        except (EOFError, OSError):
            status = self._bury()
            if status == IDLE_STATUS:
                raise
            logger.warning("grammar trial died status=%d characters=%d", status, len(grammar))
            return _cause_of_death(status)
        return RequestError(str(message), "grammar") if message else None

    def _ready_process(self) -> subprocess.Popen[bytes]:
        """The process with its library open; OverloadedError or EngineError where that fails."""
        if self._process is not None and self._process.poll() is not None:
            self._bury()
        began = self.start()
        if self._is_ready:
            return began
        assert began.stdout is not None
        try:
            with _bounded(began, MAX_START_S):
                _read(began.stdout)
        except (EOFError, OSError):
            status = self._bury()
            logger.exception("grammar trial did not start status=%d", status)
            raise _failed_start(status) from None
        self._is_ready = True
        return began

    def start(self) -> subprocess.Popen[bytes]:
        """The process, which need not be ready yet."""
        if self._process is None:
            pipe = subprocess.PIPE
            self._process = subprocess.Popen(COMMAND, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
            self._end = weakref.finalize(self, _end, self._process)
            assert self._process.stdin is not None
            with contextlib.suppress(OSError), _bounded(self._process, MAX_START_S):
                _write(self._process.stdin, self._model)  # a process that died at once is told by its silence
        return self._process

    def _bury(self) -> int:
        """Have done with a process that is dead, or has closed its pipes to die; its exit status."""
        assert self._process is not None
        assert self._end is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(GRACE_S)
        self._end()
        status = self._process.returncode
        self._process, self._end, self._is_ready = None, None, False
        return status


@contextlib.contextmanager
def _bounded(process: subprocess.Popen[bytes], limit_s: float) -> Iterator[None]:
    """Kill a process that is not done in time, so that its pipes end."""
    timer = threading.Timer(limit_s, process.kill)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _cause_of_death(status: int) -> EngineError:
    if status == -signal.SIGALRM:
        why = f"takes longer than {MAX_TRIAL_S:g} s to compile; make it smaller"
        return RequestError(f"the constraint on the output {why}", "grammar")
    if status in GRAMMARS_FAULTS:
        why = "is too deep or too large to be compiled; make it smaller"
        return RequestError(f"the constraint on the output {why}", "grammar")
    if status < 0:
        return OverloadedError(
            f"the process that tries constraints on outputs was ended by signal {-status}, as where memory runs "
            "out; try again in 1 s"
        )
    return EngineError(f"the process that tries constraints on outputs failed with status {status}")


def _failed_start(status: int) -> EngineError:
    if status < 0:
        return OverloadedError(
            f"the process that tries constraints on outputs could not start within {MAX_START_S:g} s, or was ended "
            f"by signal {-status}; try again in 1 s"
        )
    return EngineError(f"the process that tries constraints on outputs could not start: status {status}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        assert pipe is not None
        with contextlib.suppress(OSError):  # what was still to be written has no reader
            pipe.close()


def _write(pipe: IO[bytes], value: object) -> None:
    pipe.write(json.dumps(value).encode("ascii") + b"\n")
    pipe.flush()


def _read(pipe: IO[bytes]) -> Any:  # Any: whatever the other side wrote
    """The next value; EOFError at the end."""
    if not (line := pipe.readline()).endswith(b"\n"):
        raise EOFError
    return json.loads(line)


def main() -> None:
    """Try each grammar that comes on the standard input, to its end; told to die, nobody has to kill it."""
    threading.stack_size(STACK_BYTES)
    statuses = [FAILED_STATUS]
    worker = threading.Thread(target=lambda: statuses.append(_serve(sys.stdin.buffer, sys.stdout.buffer)))
    worker.start()
    worker.join()
    sys.exit(statuses[-1])


def _serve(questions: IO[bytes], answers: IO[bytes]) -> int:
    # Here, since the other side shall not load the library.
    from engine.structured.library import Library  # noqa: PLC0415

    with contextlib.suppress(EOFError):
        tokens, special_ids, vocab_size, eos_ids = _Model._make(_read(questions))
        vocabulary = Vocabulary(
            token_bytes=tuple(token.encode("latin-1") for token in tokens), special_ids=tuple(special_ids)
        )
        library = Library.open(vocabulary, vocab_size=vocab_size, eos_ids=tuple(eos_ids), num_threads=1)
        _bound_memory()
        _write(answers, "ready")
        while select.select([questions], [], [], MAX_IDLE_S)[0]:
            grammar = str(_read(questions))
            signal.setitimer(signal.ITIMER_REAL, MAX_TRIAL_S)
            refusal = _refusal(library, grammar)
            signal.setitimer(signal.ITIMER_REAL, 0)
            _write(answers, refusal)
    return IDLE_STATUS


def _refusal(library: "Library", grammar: str) -> str:
    try:
        library.compile(grammar).deep_copy().compute_bitmask()
    except RequestError as error:
        return error.message
    except MemoryError:
        os.abort()  # as where the library finds that there is none left
    return ""


def _bound_memory() -> None:
    """From here on at most `MAX_TRIAL_BYTES` more, where the system tells how much there is; and no dump."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        num_pages = int(Path("/proc/self/statm").read_text("ascii").split()[0])
        limit = num_pages * resource.getpagesize() + MAX_TRIAL_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))


if __name__ == "__main__":
    main()
