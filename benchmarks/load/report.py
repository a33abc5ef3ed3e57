"""A run's figures for a reader, and for a program."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.load.drive import Run
from benchmarks.load.summary import Quantiles, Summary

NAMES = {
    "first_ms": "time to first text, ms",
    "gap_ms": "gap between chunks, ms",
    "token_ms": "time per output token, ms",
    "total_ms": "whole answer, ms",
}


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in columns of one width, the first to the left and the others to the right; row 0 is the head."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = [
        "  ".join(
            cell.rjust(width) if index else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def describe(summary: Summary) -> str:
    """The figures of one run, to be read."""
    quantiles: list[tuple[str, ...]] = [("", "p50", "p90", "p99", "max")]
    for name, title in NAMES.items():
        values: Quantiles = getattr(summary, name)
        quantiles.append(
            (title, *(f"{value:.1f}" for value in (values.p50, values.p90, values.p99, values.max)))
        )
    return "\n".join([table(quantiles), "", *_lines(summary)])


def write_json(path: Path, run: Run, summary: Summary, conditions: dict[str, Any]) -> None:  # Any: JSON
    """Write the load, the figures, every outcome and the conditions."""
    begin_s = min(outcome.due_s for outcome in run.outcomes)
    report = {
        "conditions": conditions,
        "load": asdict(run.load),
        "summary": summary.to_json(),
        "outcomes": [
            asdict(outcome)
            | {
                "due_s": outcome.due_s - begin_s,
                "sent_s": outcome.sent_s - begin_s,
                "ended_s": outcome.ended_s - begin_s,
                "text_times_s": [round(time_s - begin_s, 6) for time_s in outcome.text_times_s],
            }
            for outcome in run.outcomes
        ],
    }
    path.write_text(json.dumps(report, indent=1) + "\n", "utf-8")


def _lines(summary: Summary) -> list[str]:
    lines = [
        f"{summary.output_tokens_per_s:.1f} output tokens/s, {summary.input_tokens_per_s:.1f} input tokens/s, "
        f"{summary.requests_per_s:.2f} requests/s, {summary.good_per_s:.2f} good requests/s",
        f"{summary.num_ok} of {summary.num_requests} requests answered in {summary.wall_s:.2f} s: "
        f"{summary.input_tokens} tokens in, {summary.output_tokens} out",
    ]
    if summary.num_short:
        lines.append(f"{summary.num_short} answers had fewer tokens than asked for")
    for status, count in sorted(summary.errors.items()):
        lines.append(f"{count} failed: {status}")
    if summary.error_message:
        lines.append(f"the first failure said: {summary.error_message}")
    if summary.peak_pss_bytes is not None:
        lines.append(f"{summary.peak_pss_bytes / 1e9:.2f} GB of memory at the server's peak (PSS)")
    if summary.strangers_cpu_share is not None:
        lines.append(f"others took {summary.strangers_cpu_share:.1%} of a core meanwhile")
    lines.append(
        f"the client took {summary.client_cpu_share:.1%} of a core, and sent at most {summary.late_ms:.1f} ms late"
    )
    return lines
