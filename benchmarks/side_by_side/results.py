"""What has been measured, kept in one JSON file that later runs add to, and its table."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.load.report import table
from benchmarks.side_by_side.contest import ROWS, Row

ABSENT = "–"
DISTURBING_SHARE = 0.1


@dataclass(slots=True)
class Results:
    """Records of rounds, in the order they were made, and under which conditions.

    `servers` holds version, command and environment by label. A record has a server's label, when, the
    time to its first answer, its peak memory and the summary of each load.
    """

    machine: dict[str, Any] = field(default_factory=dict)  # Any: JSON
    servers: dict[str, dict[str, Any]] = field(default_factory=dict)  # Any: JSON
    records: list[dict[str, Any]] = field(default_factory=list)  # Any: JSON

    @classmethod
    def load(cls, path: Path | None) -> "Results":
        """Those of an earlier run, none if there is no such file."""
        if path is None or not path.exists():
            return cls()
        return cls(**json.loads(path.read_text("utf-8")))

    def save(self, path: Path) -> None:
        """Write all, in the place of what was there."""
        text = json.dumps(
            {"machine": self.machine, "servers": self.servers, "records": self.records}, indent=1
        )
        path.write_text(text + "\n", "utf-8")

    def values(self, row: Row, label: str) -> list[float]:
        """A server's figures in one row, a value a round in which it was measured."""
        found = (row.value(record) for record in self.records if record["server"] == label)
        return [value for value in found if value is not None]


def describe(results: Results) -> str:
    """The table: medians with their range, and the first server's ratio to the best of the others."""
    labels = list(results.servers)
    head = ["", *labels, "ratio to best peer"]
    lines = [head]
    for row in ROWS:
        samples = [results.values(row, label) for label in labels]
        if any(samples):
            lines.append([row.title, *(_cell(row, sample) for sample in samples), ratio(row, samples)])
    return table(lines) + "\n\n" + "\n".join(_conditions(results))


def ratio(row: Row, samples: Sequence[Sequence[float]]) -> str:
    """The first server's median over the best median of the others, whether high or low is good."""
    first, *others = samples
    medians = [median(sample) for sample in others if sample]
    if not first or not medians:
        return ABSENT
    best = max(medians) if row.is_higher_better else min(medians)
    return f"{median(first) / best:.2f} ×"


def _cell(row: Row, sample: Sequence[float]) -> str:
    if not sample:
        return ABSENT
    middle, least, most = (
        f"{value:,.{row.num_digits}f}" for value in (median(sample), min(sample), max(sample))
    )
    return middle if len(sample) == 1 else f"{middle} ({least}–{most})"


def _conditions(results: Results) -> list[str]:
    lines = [", ".join(f"{name} {_plain(value)}" for name, value in results.machine.items())]
    for label, server in results.servers.items():
        settings = [f"{name}={value}" for name, value in server["environment"].items()]
        lines.append(f"{label}: {server['version']}: {' '.join([*settings, *server['command']])}")
    failed = [
        f"{record['server']}, {name}: {summary['errors']} {summary['error_message']}"
        for record in results.records
        for name, summary in record["loads"].items()
        if summary["errors"]
    ]
    return [*lines, *failed, *_disturbances(results)]


def _disturbances(results: Results) -> list[str]:
    """Which figures are not a server's alone, since others used the cores meanwhile."""
    return [
        f"disturbed: {record['server']}, {name}: others took {share:.0%} of a core"
        for record in results.records
        for name, summary in record["loads"].items()
        if (share := summary.get("strangers_cpu_share") or 0.0) > DISTURBING_SHARE
    ]


def _plain(value: object) -> str:
    return " ".join(value) if isinstance(value, list) else str(value)
