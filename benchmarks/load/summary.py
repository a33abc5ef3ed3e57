"""The figures of a run: percentiles, rates, errors. Pure arithmetic on outcomes."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from benchmarks.load.answer import Outcome
from benchmarks.load.drive import Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantiles:
    """Where the values of a sample lie, in milliseconds; all 0 if there are none."""

    p50: float
    p90: float
    p99: float
    max: float

    @classmethod
    def of_seconds(cls, values_s: Iterable[float]) -> "Quantiles":
        """Those of a sample in seconds."""
        ordered = sorted(values_s)
        p50, p90, p99, most = (1e3 * quantile(ordered, share) for share in (0.5, 0.9, 0.99, 1.0))
        return cls(p50=p50, p90=p90, p99=p99, max=most)


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """What a good answer keeps, in milliseconds; None asks for nothing.

    `token_ms` is for the mean time of an output token after the first.
    """

    first_ms: float | None = None
    token_ms: float | None = None
    total_ms: float | None = None

    @classmethod
    def read(cls, text: str) -> "Objective":
        """`first=500,token=50,total=5000`, any of them left out."""
        pairs = (part.partition("=") for part in text.split(","))
        return cls(**{f"{name.strip()}_ms": float(value) for name, _, value in pairs})

    def is_met(self, outcome: Outcome) -> bool:
        """Whether `outcome` is good."""
        if not outcome.is_ok:
            return False
        took = (
            (self.first_ms, first_s(outcome)),
            (self.token_ms, token_s(outcome)),
            (self.total_ms, outcome.ended_s - outcome.due_s),
        )
        return all(limit is None or (value or 0.0) * 1e3 <= limit for limit, value in took)


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """The figures of one run.

    `first_ms` is the time to the first text, `gap_ms` between two chunks with text, `token_ms` the mean
    time of an answer's tokens after its first, `total_ms` to the end of the answer; all from when the
    request was due. `num_short` answers had fewer tokens than asked for. `late_ms` is how much too late
    the client itself sent a request, at most; `client_cpu_share` how much of a core it used, and
    `strangers_cpu_share` how much of one was used by neither client nor server: above some 0.1 the figures
    are not the server's.
    """

    wall_s: float
    num_requests: int
    num_ok: int
    num_short: int
    errors: dict[str, int]
    error_message: str
    input_tokens: int
    output_tokens: int
    output_tokens_per_s: float
    input_tokens_per_s: float
    requests_per_s: float
    good_per_s: float
    good_share: float
    first_ms: Quantiles
    gap_ms: Quantiles
    token_ms: Quantiles
    total_ms: Quantiles
    late_ms: float
    client_cpu_s: float
    client_cpu_share: float
    peak_pss_bytes: int | None
    strangers_cpu_share: float | None

    def to_json(self) -> dict[str, Any]:  # Any: JSON
        """As plain values."""
        return asdict(self)


def summarize(run: Run, objective: Objective | None = None) -> Summary:
    """The figures of `run`; without an objective every full answer is good."""
    good = [outcome for outcome in run.outcomes if outcome.is_ok]
    output_tokens = sum(outcome.output_tokens for outcome in good)
    input_tokens = sum(outcome.input_tokens for outcome in good)
    num_good = sum((objective or Objective()).is_met(outcome) for outcome in run.outcomes)
    return Summary(
        wall_s=run.wall_s,
        num_requests=len(run.outcomes),
        num_ok=len(good),
        num_short=sum(outcome.output_tokens < outcome.asked_tokens for outcome in good),
        errors=dict(Counter(outcome.status for outcome in run.outcomes if not outcome.is_ok)),
        error_message=next((outcome.message for outcome in run.outcomes if outcome.message), ""),
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        output_tokens_per_s=output_tokens / run.wall_s,
        input_tokens_per_s=input_tokens / run.wall_s,
        requests_per_s=len(good) / run.wall_s,
        good_per_s=num_good / run.wall_s,
        good_share=num_good / len(run.outcomes),
        first_ms=Quantiles.of_seconds(value for one in good if (value := first_s(one)) is not None),
        gap_ms=Quantiles.of_seconds(gap for one in good for gap in gaps_s(one)),
        token_ms=Quantiles.of_seconds(value for one in good if (value := token_s(one)) is not None),
        total_ms=Quantiles.of_seconds(one.ended_s - one.due_s for one in good),
        late_ms=1e3 * max(outcome.sent_s - outcome.due_s for outcome in run.outcomes),
        client_cpu_s=run.client_cpu_s,
        client_cpu_share=run.client_cpu_s / run.wall_s,
        peak_pss_bytes=run.peak_pss_bytes,
        strangers_cpu_share=None if run.strangers_cpu_s is None else run.strangers_cpu_s / run.wall_s,
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """The value below which `share` of an ordered sample lies, between its neighbours in proportion.

    The half of (1, 2, 4, 8) is 3, its nine tenths 4 + 0.7 · 4 = 6.8. 0 of an empty sample.
    Source: Hyndman and Fan 1996, definition 7, which numpy takes too.
    """
    if not ordered:
        return 0.0
    place = share * (len(ordered) - 1)
    below = min(int(place), len(ordered) - 2)
    if below < 0:
        return ordered[0]
    return ordered[below] + (place - below) * (ordered[below + 1] - ordered[below])


def first_s(outcome: Outcome) -> float | None:
    """Time to the first text; None if none was streamed."""
    return outcome.text_times_s[0] - outcome.due_s if outcome.text_times_s else None


def gaps_s(outcome: Outcome) -> list[float]:
    """Times between chunks with text."""
    return [later - earlier for earlier, later in pairwise(outcome.text_times_s)]


def token_s(outcome: Outcome) -> float | None:
    """Mean time of an output token after the first; None if there is none, or nothing was streamed."""
    if outcome.output_tokens < 2 or len(outcome.text_times_s) < 2:
        return None
    return (outcome.text_times_s[-1] - outcome.text_times_s[0]) / (outcome.output_tokens - 1)
