"""`GrammarCompiler`: turns grammars into automata on threads of its own, and remembers the latest.

Each is tried in another process first, so that none can end this one or occupy a thread for good.

All its methods belong to the loop's thread, which never waits for it: it is told by `wake` that something
may be ready, and asks. It knows no scheduling, and of requests their ids only.
"""

import logging
import queue
import time
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from engine.errors import EngineError, OverloadedError, RequestError
from engine.messages import Vocabulary
from engine.structured.automaton import Automaton
from engine.structured.mask import MaskTable
from engine.structured.trial import Trial

if TYPE_CHECKING:
    from llguidance import LLMatcher

    from engine.structured.library import Library

logger = logging.getLogger(__name__)

MAX_THREADS = 2
MAX_WAITING = 64
MAX_WAIT_S = 10.0
MAX_CACHED = 256
MAX_CACHED_CHARS = 4 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelTokens:
    """What the model says of its vocabulary."""

    vocab_size: int
    eos_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Grammar:
    """A compiled grammar at its start."""

    library: "Library"
    matcher: "LLMatcher"

    def new_automaton(self) -> Automaton:
        """A follower for one more sequence."""
        return Automaton(self.library, self.matcher.deep_copy())


@dataclass(frozen=True, slots=True)
class _Wish:
    """One request's grammar under way."""

    text: str
    compiled: "Future[Grammar]"
    deadline_s: float


class GrammarCompiler:
    """Compiles each grammar once while it is remembered: the `MAX_CACHED` used last, of bounded size."""

    def __init__(
        self,
        tokens: ModelTokens,
        masks: MaskTable,
        wake: Callable[[], None],
        *,
        num_threads: int = 1,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokens = tokens
        self._masks = masks
        self._wake = wake
        self._num_threads = num_threads
        self._now = now
        self._library: Future[Library] | None = None
        self._trials: queue.LifoQueue[Trial] = queue.LifoQueue()
        self._cache: OrderedDict[str, Future[Grammar]] = OrderedDict()
        self._wishes: dict[str, _Wish] = {}
        self._pool: ThreadPoolExecutor | None = None

    @property
    def has_wishes(self) -> bool:
        """Whether any request waits for its grammar."""
        return bool(self._wishes)

    def supply(self, vocabulary: Vocabulary) -> None:
        """Take the tokens' bytes, without which no grammar can be compiled."""
        self._library = self._threads().submit(_open_library, vocabulary, self._tokens, self._num_threads)
        for _ in range(MAX_THREADS):
            self._trials.put(Trial(vocabulary, self._tokens.vocab_size, self._tokens.eos_ids))

    def begin(self, request_id: str, grammar: str) -> None:
        """Begin to compile a request's grammar, unless it is remembered or under way.

        Raises OverloadedError when too many wait already.
        """
        compiled = self._cache.get(grammar)
        if compiled is None or _may_be_tried_again(compiled):
            if sum(not wish.compiled.done() for wish in self._wishes.values()) >= MAX_WAITING:
                raise OverloadedError(f"{MAX_WAITING} grammars wait to be compiled; try again in 1 s")
            assert self._library is not None, "the vocabulary comes before the first grammar"
            compiled = self._threads().submit(_compile, self._library, self._trials, grammar)
            compiled.add_done_callback(lambda _: self._wake())
            self._remember(grammar, compiled)
        self._cache.move_to_end(grammar)
        self._wishes[request_id] = _Wish(grammar, compiled, self._now() + MAX_WAIT_S)

    def drop(self, request_id: str) -> None:
        """Nobody waits for this request's grammar any more; others that want the same still do."""
        self._wishes.pop(request_id, None)

    def take_ready(self) -> "list[tuple[str, Grammar | EngineError]]":
        """The requests whose wait is over, in the order in which they came, and what came of it."""
        ready: list[tuple[str, Grammar | EngineError]] = []
        for request_id, wish in tuple(self._wishes.items()):
            if wish.compiled.done():
                ready.append((request_id, _outcome(wish.compiled)))
            elif self._now() >= wish.deadline_s:
                self._forget(wish)
                ready.append((request_id, _waited_too_long()))
            else:
                continue
            del self._wishes[request_id]
        return ready

    def constrain(self, grammar: Grammar, sequence_id: int) -> Automaton:
        """A follower for one sequence, whose masks can be had by its id."""
        automaton = grammar.new_automaton()
        self._masks.add(sequence_id, automaton)
        return automaton

    def _threads(self) -> ThreadPoolExecutor:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="grammars")
        return self._pool

    def _remember(self, grammar: str, compiled: "Future[Grammar]") -> None:
        self._cache[grammar] = compiled
        while len(self._cache) > MAX_CACHED or sum(map(len, self._cache)) > MAX_CACHED_CHARS:
            self._cache.popitem(last=False)

    def _forget(self, wish: _Wish) -> None:
        """Wait no longer for a grammar; where a thread has begun it, that thread goes on to the trial's end."""
        wish.compiled.cancel()
        if self._cache.get(wish.text) is wish.compiled:
            del self._cache[wish.text]


def _open_library(vocabulary: Vocabulary, tokens: ModelTokens, num_threads: int) -> "Library":
    # Here, since only constrained requests shall pay for the library.
    from engine.structured.library import Library  # noqa: PLC0415

    began_s = time.perf_counter()
    library = Library.open(
        vocabulary, vocab_size=tokens.vocab_size, eos_ids=tokens.eos_ids, num_threads=num_threads
    )
    logger.info(
        "grammars ready vocabulary=%d ms=%.0f", tokens.vocab_size, 1000 * (time.perf_counter() - began_s)
    )
    return library


def _compile(opened: "Future[Library]", trials: "queue.LifoQueue[Trial]", text: str) -> Grammar:
    library = opened.result()
    began_s = time.perf_counter()
    trial = trials.get()  # there are as many as threads
    try:
        refusal = trial.refusal(text)
    finally:
        trials.put(trial)
    if refusal is not None:
        raise refusal
    matcher = library.compile(text)
    logger.debug("grammar compiled characters=%d ms=%.1f", len(text), 1000 * (time.perf_counter() - began_s))
    return Grammar(library, matcher)


def _outcome(compiled: "Future[Grammar]") -> Grammar | EngineError:
    if compiled.cancelled():
        return _waited_too_long()
    error = compiled.exception()
    if error is None:
        return compiled.result()
    if isinstance(error, EngineError):
        return error.fresh()
    logger.error("grammar failed", exc_info=error)
    return EngineError(f"the constraint on the output could not be compiled: {type(error).__name__}: {error}")


def _may_be_tried_again(compiled: "Future[Grammar]") -> bool:
    """Whether it failed by no fault of the grammar, so that the failure is nothing to remember."""
    if not compiled.done():
        return False
    return compiled.cancelled() or not isinstance(compiled.exception(), RequestError | None)


def _waited_too_long() -> OverloadedError:
    """That a grammar itself takes too long the trial says; this is the fault of those before it."""
    return OverloadedError("too many constraints on outputs are being compiled; try again in 1 s")
