"""The loads that servers are compared by, and the figures that count: rows of the table."""

from dataclasses import dataclass
from typing import Any

from benchmarks.load.workload import Load, Span


def _exactly(num_tokens: int) -> Span:
    return Span(least=num_tokens, most=num_tokens)


LOADS: dict[str, Load] = {
    "one-stream": Load(
        num_requests=5, concurrency=1, input_tokens=_exactly(64), output_tokens=_exactly(128), num_warmup=1
    ),
    "long-prompt": Load(
        num_requests=5, concurrency=1, input_tokens=_exactly(1_500), output_tokens=_exactly(2), num_warmup=1
    ),
    "eight-streams": Load(
        num_requests=24, concurrency=8, input_tokens=_exactly(64), output_tokens=_exactly(128), num_warmup=8
    ),
    "sixteen-streams": Load(
        num_requests=32, concurrency=16, input_tokens=_exactly(512), output_tokens=_exactly(128), num_warmup=8
    ),
    "shared-prefix": Load(
        num_requests=48,
        concurrency=8,
        input_tokens=_exactly(1_024),
        output_tokens=_exactly(32),
        shared_tokens=1_000,
        num_warmup=8,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A row of the table: a figure of a load's summary, named by its path, times `scale`.

    `load` is None for what concerns the server as a whole. The best is the highest, or the lowest.
    """

    title: str
    load: str | None
    figure: str
    is_higher_better: bool
    scale: float = 1.0
    num_digits: int = 0

    def value(self, record: dict[str, Any]) -> float | None:  # Any: parsed JSON
        """The figure in one record of a round; None if it was not measured."""
        found: Any = record["loads"].get(self.load) if self.load else record  # Any: parsed JSON
        for name in self.figure.split("."):
            if found is None:
                return None
            found = found.get(name)
        return None if found is None else float(found) * self.scale


ROWS = (
    Row(
        title="one stream, 64 in, 128 out: output tokens/s",
        load="one-stream",
        figure="output_tokens_per_s",
        is_higher_better=True,
    ),
    Row(
        title="one stream, 1,500 in: time to first token, s",
        load="long-prompt",
        figure="first_ms.p50",
        is_higher_better=False,
        scale=1e-3,
        num_digits=2,
    ),
    Row(
        title="8 streams, 64 in, 128 out: output tokens/s",
        load="eight-streams",
        figure="output_tokens_per_s",
        is_higher_better=True,
    ),
    Row(
        title="16 streams, 512 in, 128 out: output tokens/s",
        load="sixteen-streams",
        figure="output_tokens_per_s",
        is_higher_better=True,
    ),
    Row(
        title="16 streams, 512 in, 128 out: p99 gap, ms",
        load="sixteen-streams",
        figure="gap_ms.p99",
        is_higher_better=False,
    ),
    Row(
        title="8 streams, 1,000 shared of 1,024 in, 32 out: output tokens/s",
        load="shared-prefix",
        figure="output_tokens_per_s",
        is_higher_better=True,
    ),
    Row(
        title="command to first answer, s",
        load=None,
        figure="first_answer_s",
        is_higher_better=False,
        num_digits=2,
    ),
    Row(
        title="memory at peak (PSS), GB",
        load=None,
        figure="peak_pss_bytes",
        is_higher_better=False,
        scale=1e-9,
        num_digits=2,
    ),
)
