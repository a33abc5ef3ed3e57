"""Mixed traffic for a long time, and a look at everything that must stay as it is.

    python -m benchmarks.soak --minutes 30

Starts a server of its own for the demo model with an imposed window and a small pool, keeps some clients busy,
and once in a while lets them pause: then no sequence may be left, all blocks are free or evictable, a fixed request
gets the same answer as ever, the engine was not restarted, no step failed, and processes, descriptors and
memory are as they were. Exit status 1 at the first look that finds otherwise.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.load.answer import first_model
from benchmarks.load.connection import BrokenAnswerError, Host
from benchmarks.load.memory import PROC, process_tree, tree_pss_bytes
from benchmarks.machine import describe_machine
from benchmarks.side_by_side.servers import Contestant, Running, running
from benchmarks.traffic import Traffic

WINDOW, MAX_CONTEXT = 64, 1024
SERVE = (
    *("--window", str(WINDOW), "--max-context", str(MAX_CONTEXT), "--max-chunk-tokens", "64"),
    *("--kv-cache-bytes", "12MiB", "--max-running", "8", "--max-waiting", "8", "--log-level", "warning"),
)
SETTLE_S = 20.0
POLL_S = 0.1
REPOSITORY = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """The server at rest."""

    is_idle: bool
    num_blocks: int
    num_held: int
    generation: int
    num_failed_steps: int
    num_processes: int
    num_files: int
    memory_bytes: int
    answer: str


def differences(look: Look, first: Look, max_growth_bytes: int) -> list[str]:
    """What is not as it must be, in words; `first` is the server when it had warmed up."""
    found = []
    if not look.is_idle:
        found.append("sequences are left although no client has a request")
    if look.num_held:
        found.append(f"{look.num_held} of {look.num_blocks} blocks are held by nobody")
    if look.num_failed_steps:
        found.append(f"{look.num_failed_steps} steps failed")
    for name in ("generation", "num_processes", "answer"):
        now, then = getattr(look, name), getattr(first, name)
        if now != then:
            found.append(f"{name} is {now!r}, and was {then!r}")
    if look.num_files > first.num_files:
        found.append(f"{look.num_files} descriptors are open, and there were {first.num_files}")
    if look.memory_bytes > first.memory_bytes + max_growth_bytes:
        found.append(f"memory is {look.memory_bytes >> 20} MiB, and was {first.memory_bytes >> 20} MiB")
    return found


async def look_at(traffic: Traffic, pid: int) -> Look:
    """The server once it has come to rest; as it is, if it does not."""
    answer = await traffic.probe()
    end_s = time.monotonic() + SETTLE_S
    while True:
        stats: Any = await traffic.host.get_json("/stats")  # Any: parsed JSON
        is_idle = stats["is_live"] and not stats["sequences"] and not stats["open_requests"]
        if (is_idle and not stats["pool"]["num_held"]) or time.monotonic() > end_s:
            break
        await asyncio.sleep(POLL_S)
    await traffic.host.close()
    await _until_files_settle(pid, end_s)
    return Look(
        is_idle=is_idle,
        num_blocks=stats["pool"]["num_blocks"],
        num_held=stats["pool"]["num_held"],
        generation=stats["engine"]["generation"],
        num_failed_steps=stats["num_failed_steps"],
        num_processes=len(process_tree(pid)),
        num_files=num_files(pid),
        memory_bytes=tree_pss_bytes(pid),
        answer=answer,
    )


async def _until_files_settle(pid: int, end_s: float) -> None:
    """The server closes its ends of connections a moment after ours: wait until their number stays."""
    last = -1
    while (now := num_files(pid)) != last and time.monotonic() < end_s:
        last = now
        await asyncio.sleep(5 * POLL_S)


def num_files(pid: int) -> int:
    """Open descriptors of a process and all below it."""
    return sum(len(list((PROC / str(member) / "fd").iterdir())) for member in process_tree(pid))


async def soak(live: Running, options: argparse.Namespace) -> int:
    """Traffic and looks in turn, for the time that was set; 1 at the first look that finds something."""
    host = Host(live.url)
    traffic = Traffic(host=host, model=await first_model(host), max_context=MAX_CONTEXT)
    begin_s = time.monotonic()
    end_s = begin_s + 60 * options.minutes
    await _busy(traffic, min(options.warmup_s, 30 * options.minutes), options, round_number=0)
    first = await look_at(traffic, live.pid)
    found = differences(first, first, 0) + traffic.complaints
    _report(0, first, traffic, found)
    round_number = 0
    while time.monotonic() < end_s and not found:
        round_number += 1
        await _busy(
            traffic, min(options.look_s, end_s - time.monotonic()), options, round_number=round_number
        )
        look = await look_at(traffic, live.pid)
        found = differences(look, first, options.max_growth_mib << 20) + traffic.complaints
        _report(round(time.monotonic() - begin_s), look, traffic, found)
    print(f"{'FAILED' if found else 'passed'} after {time.monotonic() - begin_s:.0f} s")
    return int(bool(found))


async def _busy(traffic: Traffic, seconds: float, options: argparse.Namespace, *, round_number: int) -> None:
    """Keep the clients busy for a while, and return when each has ended what it had begun."""
    end_s = time.monotonic() + seconds

    async def client(number: int) -> None:
        rng = random.Random(f"{options.seed} {round_number} {number}")
        while time.monotonic() < end_s:
            try:
                await traffic.play(rng)
            except (OSError, BrokenAnswerError) as error:
                traffic.complaints.append(f"client {number}: {type(error).__name__}: {error}")
                return

    await asyncio.gather(*(client(number) for number in range(options.clients)))


def _report(seconds: int, look: Look, traffic: Traffic, found: list[str]) -> None:
    counts = " ".join(f"{name}={count}" for name, count in sorted(traffic.counts.items()))
    print(
        f"{seconds:5d} s  {look.memory_bytes / 2**20:.1f} MiB  files {look.num_files}  processes {look.num_processes}  "
        f"blocks held {look.num_held} of {look.num_blocks}  {counts}",
        flush=True,
    )
    for line in found[:20]:
        print(f"  WRONG: {line}", flush=True)


def main(words: list[str] | None = None) -> int:
    """Start a server, soak it, and tell."""
    options = parser().parse_args(words)
    print(describe_machine(), flush=True)
    command = (
        sys.executable,
        "-m",
        "server",
        "serve",
        options.model,
        "--port",
        "{port}",
        *SERVE,
        *options.serve,
    )
    server = Contestant(
        label="ringserve",
        command=command,
        version=(),
        environment={"PYTHONPATH": str(REPOSITORY)},
        dialect="ringserve",
    )
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with running(server, log, options.patience_s) as live:
            status = asyncio.run(soak(live, options))
        if status:
            print("the server's last lines:", *log.read_text("utf-8", "replace").splitlines()[-20:], sep="\n")
    return status


def parser() -> argparse.ArgumentParser:
    """What the soak may be told."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument("--minutes", type=float, default=1.0)
    result.add_argument("--look-s", type=float, default=60.0, help="time between two looks")
    result.add_argument("--warmup-s", type=float, default=30.0, help="traffic before the first look")
    result.add_argument("--clients", type=int, default=10)
    result.add_argument("--max-growth-mib", type=int, default=32, help="of memory, since the first look")
    result.add_argument("--model", default="smollm2-135m-instruct", help="what the server serves")
    result.add_argument("--serve", action="append", default=[], metavar="=--FLAG", help="more for the server")
    result.add_argument("--patience-s", type=float, default=120.0, help="for the server's start")
    result.add_argument("--seed", type=int, default=0)
    return result


if __name__ == "__main__":
    sys.exit(main())
