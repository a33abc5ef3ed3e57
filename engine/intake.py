"""`Intake`: reads the channel on its own thread, and hands over what the loop is to act on.

It sorts only, so that an abort passes at once; it never waits for the loop, and touches neither
queues nor blocks. What a request needs before it can be scheduled is made ready here: a grammar is
compiled on threads of the compiler's, while all else goes on.
"""

import logging
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from engine.cache.layout import CacheLayout
from engine.errors import ContextLengthError, EngineError, OverloadedError, RequestError
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
    Vocabulary,
)
from engine.request import Request
from engine.scheduling.sequence import Sequence, make_sequences
from engine.structured.compiler import Grammar, GrammarCompiler, ModelTokens
from engine.structured.mask import MaskTable

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Stop:
    """The server closed the channel, or is gone."""


Work = tuple[Sequence, ...] | Abort | Finish | ClearCache | Inspect | Drain | Stop


@dataclass(frozen=True, slots=True, kw_only=True)
class _Ready:
    """The compiler may have something."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IntakeRules:
    """What requests are measured by, and how their sequences are made."""

    layout: CacheLayout
    tokens: ModelTokens
    has_prefix_cache: bool = True


class Intake:
    """Turns messages into work for the loop.

    `receive` blocks, and answers None at the end of the channel. The thread reads; the loop, whose
    thread calls `take`, owns the compiler and what waits for it.
    """

    def __init__(
        self,
        receive: Callable[[], ToEngine | None],
        send: Callable[[ToServer], None],
        rules: IntakeRules,
        masks: MaskTable,
        *,
        num_threads: int = 1,
    ) -> None:
        """`num_threads` find masks when there are several."""
        self._receive = receive
        self._send = send
        self._rules = rules
        self._queue: queue.SimpleQueue[Work | Submit | Vocabulary | _Ready] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)
        wake = partial(self._queue.put, _Ready())
        self._compiler = GrammarCompiler(rules.tokens, masks, wake, num_threads=num_threads)
        self._compiling: dict[str, Submit] = {}
        self._must_drain = False

    def start(self) -> None:
        """Start the thread, which ends with the channel."""
        self._thread.start()

    def take(self, wait_s: float) -> list[Work]:
        """All work that has arrived, in order; waits up to `wait_s` seconds for the first piece."""
        work: list[Work] = []
        if not wait_s and not self._compiling and self._queue.empty():
            return work  # as in nearly every step
        try:
            work += self._prepare(self._queue.get(timeout=wait_s) if wait_s else self._queue.get_nowait())
            while True:
                work += self._prepare(self._queue.get_nowait())
        except queue.Empty:
            return work + self._take_compiled() if self._compiling else work

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
            case Submit():
                self._submit(message)
            case Abort() | Finish() | ClearCache() | Inspect() | Drain() | Vocabulary():
                self._queue.put(message)
            case _:
                logger.error("message ignored kind=%s", type(message).__name__)

    def _submit(self, submit: Submit) -> None:
        try:
            self._check(submit.request)
        except RequestError as error:
            self._send(Refused(request_id=submit.request.request_id, error=error))
            return
        if submit.request.sampling.grammar:
            self._queue.put(submit)
            return
        self._send(Accepted(request_id=submit.request.request_id))
        self._queue.put(self._sequences(submit))

    def _sequences(self, submit: Submit) -> tuple[Sequence, ...]:
        tables = [self._rules.layout.new_tables() for _ in range(submit.request.num_choices)]
        return make_sequences(
            submit.request, submit.first_sequence_id, tables, has_prefix_cache=self._rules.has_prefix_cache
        )

    def _check(self, request: Request) -> None:
        """The last word on what can be computed here, whatever the server let through."""
        max_context = self._rules.layout.max_context
        if request.max_total_tokens > max_context:
            raise ContextLengthError(
                f"prompt and max_tokens are {request.max_total_tokens} tokens together; "
                f"at most {max_context} fit"
            )
        request.refuse_foreign_ids(self._rules.tokens.vocab_size)

    def _prepare(self, piece: Work | Submit | Vocabulary | _Ready) -> list[Work]:
        """What the loop is to do about a piece at once; called in its thread, as all below."""
        match piece:
            case Submit(request=request):
                self._compile(piece, request)
                return []
            case Vocabulary():
                self._compiler.supply(piece)
                return []
            case _Ready():
                return []
            case Abort(request_id=request_id):
                self._compiling.pop(request_id, None)
                self._compiler.drop(request_id)
                return [piece]
            case Drain() if self._compiling:
                self._must_drain = True  # what was sent before it is still under way
                return []
            case _:
                return [piece]

    def _compile(self, submit: Submit, request: Request) -> None:
        try:
            self._compiler.begin(request.request_id, request.sampling.grammar)
        except OverloadedError as error:
            self._send(Refused(request_id=request.request_id, error=error))
        else:
            self._compiling[request.request_id] = submit

    def _take_compiled(self) -> list[Work]:
        """The sequences of requests whose grammars have been compiled since."""
        work: list[Work] = []
        for request_id, outcome in self._compiler.take_ready():
            submit = self._compiling.pop(request_id)
            if isinstance(outcome, EngineError):
                self._send(Refused(request_id=request_id, error=outcome))
            else:
                self._send(Accepted(request_id=request_id))
                work.append(self._constrained(submit, outcome))
        if self._must_drain and not self._compiling:
            self._must_drain = False
            work.append(Drain())
        return work

    def _constrained(self, submit: Submit, grammar: Grammar) -> tuple[Sequence, ...]:
        sequences = self._sequences(submit)
        for sequence in sequences:
            sequence.constraint = self._compiler.constrain(grammar, sequence.sequence_id)
        return sequences
