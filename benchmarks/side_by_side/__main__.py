"""Servers in turn under the same loads, on the same machine: medians, and ratios to the best peer.

    python -m benchmarks.side_by_side ringserve:model=a.gguf llamacpp:model=a.gguf --rounds 3

The first server is the one whose ratios are told. One server runs at a time; with several rounds all
take turns (A B A B …), so a machine that grows slower does so for all of them. Each round has prompts
of its own. With --results the figures are added to those of the file.
"""

import argparse
import asyncio
import signal
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.load.answer import DIALECTS, Target, first_model
from benchmarks.load.connection import Host
from benchmarks.load.drive import Run, drive
from benchmarks.load.summary import summarize
from benchmarks.load.workload import Load
from benchmarks.machine import describe_machine
from benchmarks.side_by_side.contest import LOADS
from benchmarks.side_by_side.results import Results, describe
from benchmarks.side_by_side.servers import Contestant, read_presets, running


def main(words: list[str] | None = None) -> int:
    """Compare the servers of the command line."""
    options = parser().parse_args(words)
    results = Results.load(options.results)
    presets = read_presets(options.presets)
    contestants = [Contestant.read(text, presets) for text in options.servers]
    results.machine = results.machine or describe_machine()
    for contestant in contestants:
        results.servers[contestant.label] = {
            "version": contestant.ask_version(),
            "command": list(contestant.command),
            "environment": dict(contestant.environment),
        }
    for _ in range(options.rounds):
        seed = 1 + max((record["seed"] for record in results.records), default=-1)
        for contestant in contestants:
            record = measure(contestant, options.loads, seed, options.patience_s)
            results.records.append(record)
            if options.results:
                results.save(options.results)
    print(describe(results))
    return int(any(summary["errors"] for record in results.records for summary in record["loads"].values()))


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks.side_by_side", description=__doc__.split("\n")[0]
    )
    result.add_argument("servers", nargs="*", metavar="PRESET[:name=value,…]", help="see presets.toml")
    result.add_argument("--presets", type=Path, help="a file like presets.toml, over it")
    result.add_argument("--loads", type=_read_loads, default=list(LOADS), help=f"of {', '.join(LOADS)}")
    result.add_argument("--rounds", type=int, default=1)
    result.add_argument("--results", type=Path, help="JSON file to add to; without servers, to show")
    result.add_argument("--patience-s", type=float, default=180.0, help="how long a server may take to start")
    return result


def measure(
    contestant: Contestant, loads: list[str], seed: int, patience_s: float
) -> dict[str, Any]:  # Any: JSON
    """Start one server, send it the loads one after the other, and end it."""
    summaries = {}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "server.log")
        with running(contestant, log, patience_s) as server:
            print(f"{contestant.label}: first answer after {server.first_answer_s:.2f} s", file=sys.stderr)
            for name in loads:
                load = replace(LOADS[name], seed=seed)
                summary = summarize(asyncio.run(_send(server.url, contestant.dialect, load, server.pid)))
                summaries[name] = summary.to_json()
                print(
                    f"{contestant.label}, {name}: {summary.output_tokens_per_s:.1f} output tokens/s, "
                    f"first text {summary.first_ms.p50:.0f} ms, p99 gap {summary.gap_ms.p99:.1f} ms, "
                    f"client {summary.client_cpu_share:.1%}, others {summary.strangers_cpu_share:.1%} of a core",
                    file=sys.stderr,
                )
    return {
        "server": contestant.label,
        "seed": seed,
        "at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "first_answer_s": server.first_answer_s,
        "peak_pss_bytes": max((one["peak_pss_bytes"] or 0 for one in summaries.values()), default=0) or None,
        "loads": summaries,
    }


async def _send(url: str, dialect: str, load: Load, pid: int) -> Run:
    host = Host(url)
    try:
        target = Target(host=host, model=await first_model(host), body=DIALECTS[dialect])
        return await drive(target, load, pid)
    finally:
        await host.close()


def _read_loads(text: str) -> list[str]:
    names = text.split(",")
    if unknown := set(names) - LOADS.keys():
        raise argparse.ArgumentTypeError(f"{', '.join(sorted(unknown))}: there are {', '.join(LOADS)}")
    return names


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # ends the server under way too
    sys.exit(main())
