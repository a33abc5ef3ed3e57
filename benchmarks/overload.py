"""A server under more load than it can bear: what it still gets done, and what it tells the others.

    python -m benchmarks.overload --max-running 16 --max-waiting 32 --seconds 20

Starts a server of its own for the demo model, finds its capacity in a closed loop, then sends Poisson loads of
0.5, 1, 2 and 5 times as much. Exit status 1 if a promise is broken; each is told.

With R running, W waiting and a capacity of c requests a second, the last one in a full queue begins once
everything before it is served: (W + R) / c is the bound of its first token, (W + 2R) / c of its answer. An answer is
good if it is complete within `--slack` times that.
"""

import argparse
import asyncio
import contextlib
import json
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks.load.answer import DIALECTS, Outcome, Target, first_model
from benchmarks.load.connection import Host
from benchmarks.load.drive import Run, drive
from benchmarks.load.memory import tree_pss_bytes
from benchmarks.load.report import table
from benchmarks.load.summary import Objective, Quantiles, Summary, summarize
from benchmarks.load.workload import Load, Span
from benchmarks.machine import describe_machine
from benchmarks.side_by_side.servers import Contestant, Running, running

REFUSED = ("429", "503")
LEAST_GOODPUT = 0.9  # of the heaviest load, as a share of that at capacity
MAX_GROWTH_BYTES = 48 << 20
POLL_S = 0.1
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """What came of one load. `factor` is the load as a multiple of the capacity; memory is of the server's tree."""

    factor: float
    offered_per_s: float
    good_per_s: float
    tokens_per_s: float
    num_requests: int
    num_ok: int
    refused: Mapping[str, int]
    num_lost: int
    num_doubled: int
    max_queue: int
    first_ms: Quantiles
    total_ms: Quantiles
    memory_before_bytes: int
    memory_after_bytes: int
    late_ms: float
    client_cpu_share: float

    @classmethod
    def of(
        cls, factor: float, run: Run, summary: Summary, watch: "QueueWatch", memory: Sequence[int]
    ) -> "Point":
        """The figures of `run`; `memory` is that before and after it."""
        return cls(
            factor=factor,
            offered_per_s=run.load.rate_per_s or 0.0,
            good_per_s=summary.good_per_s,
            tokens_per_s=summary.output_tokens_per_s,
            num_requests=summary.num_requests,
            num_ok=summary.num_ok,
            refused={status: summary.errors[status] for status in REFUSED if status in summary.errors},
            num_lost=num_lost(run.outcomes),
            num_doubled=num_doubled(run.outcomes),
            max_queue=watch.longest,
            first_ms=summary.first_ms,
            total_ms=summary.total_ms,
            memory_before_bytes=memory[0],
            memory_after_bytes=memory[1],
            late_ms=summary.late_ms,
            client_cpu_share=summary.client_cpu_share,
        )


class QueueWatch:
    """Looks at the length of the server's queue at intervals, and keeps the largest."""

    def __init__(self, url: str) -> None:
        self.longest = 0
        self._host = Host(url)

    @contextlib.asynccontextmanager
    async def watching(self) -> AsyncIterator["QueueWatch"]:
        """Watch while the block runs."""
        task = asyncio.create_task(self._watch())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            await self._host.close()

    async def _watch(self) -> None:
        while True:
            _, text = await self._host.whole("GET", "/metrics", b"")
            self.longest = max(self.longest, int(gauge(str(text), "ringserve_sequences_waiting")))
            await asyncio.sleep(POLL_S)


def gauge(text: str, name: str) -> float:
    """The value of an unlabelled metric in Prometheus' text format."""
    return next(float(line.split()[1]) for line in text.splitlines() if line.startswith(f"{name} "))


def num_lost(outcomes: Sequence[Outcome]) -> int:
    """Requests that got neither a whole answer nor a refusal."""
    return sum(not outcome.is_ok and outcome.status not in REFUSED for outcome in outcomes)


def num_doubled(outcomes: Sequence[Outcome]) -> int:
    """Answers that ended more than once, or that two requests got."""
    shared = Counter(outcome.answer_id for outcome in outcomes if outcome.answer_id)
    return sum(outcome.num_endings > 1 for outcome in outcomes) + sum(count - 1 for count in shared.values())


def broken_promises(points: Sequence[Point], capacity_per_s: float, options: argparse.Namespace) -> list[str]:
    """What should have held and did not, in words."""
    first_ms = 1e3 * options.slack * (options.max_waiting + options.max_running) / capacity_per_s
    broken = []
    for point in points:
        name = f"at {point.factor:g} x capacity"
        if point.max_queue > options.max_waiting:
            broken.append(f"{name} {point.max_queue} waited; --max-waiting is {options.max_waiting}")
        if point.first_ms.max > first_ms:
            broken.append(
                f"{name} a first token took {point.first_ms.max:.0f} ms; the bound is {first_ms:.0f} ms"
            )
        if point.num_lost or point.num_doubled:
            broken.append(
                f"{name} {point.num_lost} requests were lost and {point.num_doubled} answers doubled"
            )
        if point.memory_after_bytes - point.memory_before_bytes > MAX_GROWTH_BYTES:
            broken.append(
                f"{name} memory grew by {mib(point.memory_after_bytes - point.memory_before_bytes)} MiB"
            )
    at_capacity = next((point for point in points if point.factor == 1), points[0])
    if points[-1].good_per_s < LEAST_GOODPUT * at_capacity.good_per_s:
        share = points[-1].good_per_s / at_capacity.good_per_s
        broken.append(
            f"at {points[-1].factor:g} x capacity goodput is {share:.0%} of that at {at_capacity.factor:g} x"
        )
    return broken


def main(words: list[str] | None = None) -> int:
    """Start a server, load it, print the table; 1 if a promise is broken."""
    options = parser().parse_args(words)
    command = (
        *(
            sys.executable,
            "-m",
            "server",
            "serve",
            options.model,
            "--port",
            "{port}",
            "--log-level",
            "warning",
        ),
        *("--max-running", str(options.max_running), "--max-waiting", str(options.max_waiting)),
        *options.serve,
    )
    server = Contestant(
        label="ringserve",
        command=command,
        version=(),
        environment={"PYTHONPATH": str(REPOSITORY)},
        dialect="ringserve",
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        running(server, Path(folder, "log"), options.patience_s) as live,
    ):
        capacity_per_s, points = asyncio.run(measure(live, options))
    broken = broken_promises(points, capacity_per_s, options)
    print(describe_machine())
    print(describe(points, capacity_per_s, options))
    print("\n".join(f"BROKEN: {line}" for line in broken) or "every promise was kept")
    if options.json:
        report = {
            "command": sys.argv,
            "machine": describe_machine(),
            "capacity_per_s": capacity_per_s,
            "points": [asdict(point) for point in points],
            "broken": broken,
        }
        options.json.write_text(json.dumps(report, indent=1) + "\n", "utf-8")
    return int(bool(broken))


async def measure(live: Running, options: argparse.Namespace) -> tuple[float, list[Point]]:
    """The capacity in requests a second, and what came of each load."""
    host = Host(live.url)
    try:
        target = Target(
            host=host,
            model=await first_model(host),
            body=dict(DIALECTS["ringserve"]),
            timeout_s=options.patience_s,
        )
        capacity_per_s = summarize(await drive(target, closed(options))).requests_per_s
        points = [await load_at(factor, capacity_per_s, target, live, options) for factor in options.factors]
    finally:
        await host.close()
    return capacity_per_s, points


async def load_at(
    factor: float, capacity_per_s: float, target: Target, live: Running, options: argparse.Namespace
) -> Point:
    """What comes of `factor` times the capacity."""
    rate_per_s = factor * capacity_per_s
    load = Load(
        num_requests=max(1, round(rate_per_s * options.seconds)),
        input_tokens=options.input,
        output_tokens=options.output,
        rate_per_s=rate_per_s,
        seed=round(1000 * factor),
    )
    before = tree_pss_bytes(live.pid)
    async with QueueWatch(live.url).watching() as watch:
        run = await drive(target, load)
    total_s = options.slack * (options.max_waiting + 2 * options.max_running) / capacity_per_s
    summary = summarize(run, Objective(total_ms=1e3 * total_s))
    return Point.of(factor, run, summary, watch, (before, tree_pss_bytes(live.pid)))


def closed(options: argparse.Namespace) -> Load:
    """The load that shows the capacity: as many clients as may run, without a pause, for some rounds."""
    return Load(
        num_requests=options.max_running * options.rounds,
        input_tokens=options.input,
        output_tokens=options.output,
        concurrency=options.max_running,
        num_warmup=2,
    )


def describe(points: Sequence[Point], capacity_per_s: float, options: argparse.Namespace) -> str:
    """The table, and under what it was measured."""
    rows = [
        [
            "load", "offered/s", "good/s", "tokens/s", "answered", "503", "429", "lost", "doubled",
            "queue", "first p50", "p99", "max ms", "MiB before", "after", "client core",
        ],
        *(_row(point) for point in points),
    ]  # fmt: skip
    waiting, most = options.max_waiting, options.max_running
    return "\n".join(
        [
            f"capacity {capacity_per_s:.2f} requests/s ({most} clients in a closed loop), {options.seconds:g} s a load, "
            f"{options.input.least}:{options.input.most} tokens in, {options.output.least}:{options.output.most} out, "
            f"max_running {most}, max_waiting {waiting}",
            f"bounds: first token {1e3 * options.slack * (waiting + most) / capacity_per_s:.0f} ms, "
            f"good answer {1e3 * options.slack * (waiting + 2 * most) / capacity_per_s:.0f} ms",
            table(rows),
        ]
    )


def _row(point: Point) -> list[str]:
    return [
        f"{point.factor:g} x", f"{point.offered_per_s:.1f}", f"{point.good_per_s:.2f}", f"{point.tokens_per_s:.0f}",
        f"{point.num_ok} of {point.num_requests}", str(point.refused.get("503", 0)), str(point.refused.get("429", 0)),
        str(point.num_lost), str(point.num_doubled), str(point.max_queue), f"{point.first_ms.p50:.0f}",
        f"{point.first_ms.p99:.0f}", f"{point.first_ms.max:.0f}", mib(point.memory_before_bytes),
        mib(point.memory_after_bytes), f"{point.client_cpu_share:.0%}",
    ]  # fmt: skip


def mib(num_bytes: int) -> str:
    """In MiB, rounded."""
    return f"{num_bytes / 2**20:.0f}"


def parser() -> argparse.ArgumentParser:
    """What the benchmark may be told."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--model", default="smollm2-135m-instruct", help="what the server serves")
    result.add_argument("--max-running", type=int, default=16)
    result.add_argument("--max-waiting", type=int, default=32)
    result.add_argument("--input", type=Span.read, default=Span.read("32"), help="tokens, N or LEAST:MOST")
    result.add_argument("--output", type=Span.read, default=Span.read("16"), help="tokens, N or LEAST:MOST")
    result.add_argument(
        "--rounds", type=int, default=12, help="answers a client gets while capacity is measured"
    )
    result.add_argument(
        "--factors", type=_factors, default=_factors("0.5,1,2,5"), help="loads, as multiples of it"
    )
    result.add_argument("--seconds", type=float, default=20.0, help="for each load")
    result.add_argument("--slack", type=float, default=1.5, help="how much later than computed is in time")
    result.add_argument("--patience-s", type=float, default=60.0, help="for a start, and for one answer")
    result.add_argument("--serve", action="append", default=[], metavar="=--FLAG", help="more for the server")
    result.add_argument("--json", type=Path, help="write everything here")
    return result


def _factors(text: str) -> tuple[float, ...]:
    return tuple(sorted(float(part) for part in text.split(",")))


if __name__ == "__main__":
    sys.exit(main())
