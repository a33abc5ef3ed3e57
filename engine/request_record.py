"""`RequestRecord`: how one request went, written at its end; `RequestTally`: all of them in figures.

The record is what logs, metrics and traces are made from. Times are seconds of the server's own
clock, which never goes back. Nothing here knows streams, messages or HTTP.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from engine.request import Request
from engine.stats import LATENCY_BOUNDS_S, Histogram, Tally

ABORTED = "abort"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRecord:
    """One request that has ended, whatever its end.

    `reason` is the finish reason of each choice (`stop,length`), `abort`, or the name of the error.
    `waited_s` is how long its first choice stood in the engine's queue, and `first_token_s` when
    the first token of any choice came; both are None where it did not come that far.
    """

    request: Request
    reason: str
    num_cached_tokens: int
    num_output_tokens: int
    opened_s: float
    ended_s: float
    waited_s: float | None = None
    first_token_s: float | None = None

    @property
    def outcome(self) -> str:
        """The reason in one word: `mixed` where the choices ended differently."""
        reasons = set(self.reason.split(","))
        return reasons.pop() if len(reasons) == 1 else "mixed"

    @property
    def duration_s(self) -> float:
        """From its opening to its end."""
        return self.ended_s - self.opened_s

    @property
    def to_first_token_s(self) -> float | None:
        """From its opening to its first token; None where none came."""
        return None if self.first_token_s is None else self.first_token_s - self.opened_s


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestStats:
    """All requests since the server started, in figures.

    `num_by_outcome` counts ended requests, `mixed` being those whose choices ended differently.
    Tokens of a prompt count when its first token comes, cached ones included; generated ones as they
    come. Each histogram is in seconds; `inter_token_s` has an entry for each token but a choice's first.
    """

    num_by_outcome: Mapping[str, int] = field(default_factory=dict)
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    num_generated_tokens: int = 0
    queue_s: Histogram = field(default_factory=lambda: Histogram.empty(LATENCY_BOUNDS_S))
    first_token_s: Histogram = field(default_factory=lambda: Histogram.empty(LATENCY_BOUNDS_S))
    inter_token_s: Histogram = field(default_factory=lambda: Histogram.empty(LATENCY_BOUNDS_S))
    duration_s: Histogram = field(default_factory=lambda: Histogram.empty(LATENCY_BOUNDS_S))


class RequestTally:
    """Counts requests and times their tokens as they come."""

    def __init__(self) -> None:
        self.inter_token_s = Tally(LATENCY_BOUNDS_S)
        self.num_generated_tokens = 0
        self._num_by_outcome: Counter[str] = Counter()
        self._num_prompt_tokens = 0
        self._num_cached_tokens = 0
        self._queue_s = Tally(LATENCY_BOUNDS_S)
        self._first_token_s = Tally(LATENCY_BOUNDS_S)
        self._duration_s = Tally(LATENCY_BOUNDS_S)

    def waited(self, waited_s: float) -> None:
        """A request has left the engine's queue."""
        self._queue_s.observe(waited_s)

    def first_token(self, waited_s: float, num_prompt: int, num_cached: int) -> None:
        """A request's first token came, so long after its opening: its prompt is computed."""
        self._first_token_s.observe(waited_s)
        self._prompt(num_prompt, num_cached)

    def ended(self, record: RequestRecord) -> None:
        """A request has ended; one that was only scored has had its prompt computed by now."""
        self._num_by_outcome[record.outcome] += 1
        self._duration_s.observe(record.duration_s)
        if record.request.sampling.max_tokens == 0 and record.outcome in ("stop", "length"):
            self._prompt(len(record.request.prompt_ids), record.num_cached_tokens)

    def to_stats(self) -> RequestStats:
        """All counts so far."""
        return RequestStats(
            num_by_outcome=dict(self._num_by_outcome),
            num_prompt_tokens=self._num_prompt_tokens,
            num_cached_tokens=self._num_cached_tokens,
            num_generated_tokens=self.num_generated_tokens,
            queue_s=self._queue_s.to_histogram(),
            first_token_s=self._first_token_s.to_histogram(),
            inter_token_s=self.inter_token_s.to_histogram(),
            duration_s=self._duration_s.to_histogram(),
        )

    def _prompt(self, num_tokens: int, num_cached: int) -> None:
        self._num_prompt_tokens += num_tokens
        self._num_cached_tokens += num_cached
