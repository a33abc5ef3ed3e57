"""Processor time that the server process takes for each streamed token.

    python -m benchmarks.serving [--model MODEL] [--streams 1 8 64] [--tokens 256] [--step-ms 6] [--profile FILE]

Starts the server as `ringserve serve` does, over an engine process that computes nothing: each step it
gives every sequence under way one token, a step every so many milliseconds, so that tokens do not wait for
each other. A figure is the server process's user and system time over the tokens, the prompt's
handling included. `--profile` writes where the time goes, for `pstats`; it makes the figures larger.
"""

import argparse
import asyncio
import cProfile
import itertools
import select
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

from benchmarks.load.answer import DIALECTS, Target
from benchmarks.load.connection import Host
from benchmarks.load.drive import drive
from benchmarks.load.prompts import PromptForm
from benchmarks.load.workload import Load, Span
from engine.channel import BlockingEnd
from engine.messages import Accepted, Configure, ModelCard, Pulse, Ready, Submit, Updates
from engine.messages import Load as EngineLoad
from engine.request import FinishReason

ENDPOINTS = ("chat", "completions")
WORDS = range(1_000, 1_400)
MODEL_ID = "paced"


class PacedEngine:
    """An engine process without a model: a token a step for whoever asked for one."""

    def __init__(self, descriptor: int, step_s: float) -> None:
        self._sock = socket.socket(fileno=descriptor)
        self.end = BlockingEnd(self._sock)
        self._step_s = step_s
        self._left: dict[int, int] = {}
        self._words = itertools.cycle(WORDS)

    def run(self) -> None:
        """Until the channel ends."""
        configure = self.end.receive()
        assert isinstance(configure, Configure)
        self.end.send(Ready(card=card(configure)))
        due_s = time.monotonic()
        while True:
            due_s = max(due_s + self._step_s, time.monotonic())
            wait_s = due_s - time.monotonic() if self._left else 1.0
            while select.select([self._sock], [], [], max(0.0, wait_s))[0]:
                message = self.end.receive()
                if message is None:
                    return
                if isinstance(message, Submit):
                    self._left[message.first_sequence_id] = message.request.sampling.max_tokens
                    self.end.send(Accepted(request_id=message.request.request_id))
                wait_s = due_s - time.monotonic()
            self.end.send(self._step() if self._left else Pulse(load=EngineLoad()))

    def _step(self) -> Updates:
        sequence_ids = tuple(self._left)
        self._left = {sequence_id: left - 1 for sequence_id, left in self._left.items()}
        ended = [FinishReason.LENGTH if left == 0 else None for left in self._left.values()]
        self._left = {sequence_id: left for sequence_id, left in self._left.items() if left}
        return Updates(
            sequence_ids=sequence_ids,
            num_tokens=(1,) * len(sequence_ids),
            token_ids=tuple(next(self._words) for _ in sequence_ids),
            finish_reasons=tuple(ended),
            load=EngineLoad(num_running=len(sequence_ids)),
        )


def card(configure: Configure) -> ModelCard:
    """What the server is told of a model that is none."""
    return ModelCard(
        model_id=configure.config.model.model_id, family="llama", device="cpu", dtype="bfloat16",
        vocab_size=49_152, eos_ids=(2,), max_context=8192, window=None, weight_bytes=0, block_size=16,
        block_bytes=1, num_blocks=1 << 16,
    )  # fmt: skip


def serve(words: list[str], step_ms: str, profile: str) -> int:
    """The server process: `ringserve serve` with another command for its engine process."""
    from engine import Engine, configure_logging, resolve  # noqa: PLC0415  the engine process needs none
    from server.serving import StopSignal, bind, serve_engine  # noqa: PLC0415  as above
    from server.settings import Settings  # noqa: PLC0415  as above

    settings = Settings.from_command_line(words)
    configure_logging("warning", "text")
    command = (sys.executable, "-m", "benchmarks.serving", "--engine", step_ms)
    with StopSignal.installed() as stop, bind(settings.host, settings.port) as listener:
        engine = Engine(
            settings.to_engine_config(resolve(settings.model, cache_dir=settings.cache_dir)), command=command
        )
        if not profile:
            return serve_engine(settings, engine, listener, stop)
        profiler = cProfile.Profile()
        status = profiler.runcall(serve_engine, settings, engine, listener, stop)
        profiler.dump_stats(profile)
        return status


def main() -> None:
    """Print a row for each endpoint and number of streams."""
    if sys.argv[1:2] == ["--engine"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        PacedEngine(int(sys.argv[3]), float(sys.argv[2]) / 1e3).run()
        return
    if sys.argv[1:2] == ["--server"]:
        sys.exit(serve(sys.argv[4:], sys.argv[2], sys.argv[3]))
    options = parser().parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    words = ["--port", str(port), "--served-model-name", MODEL_ID, "--max-running", "256"]
    words = [options.model, *words] if options.model else words
    server = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "benchmarks.serving",
            "--server",
            str(options.step_ms),
            options.profile,
            *words,
        ]
    )
    try:
        asyncio.run(measure(f"http://127.0.0.1:{port}", server, options))
    finally:
        server.terminate()
        server.wait()


async def measure(url: str, server: "subprocess.Popen[bytes]", options: argparse.Namespace) -> None:
    """All rows, once the server is ready."""
    host = Host(url)
    while server.poll() is None:
        try:
            if (await host.whole("GET", "/ready", b""))[0] == 200:
                break
        except OSError:
            pass
        await asyncio.sleep(0.05)
    print(f"| {'endpoint':11} | streams | µs per token | tokens/s | switches per token |")
    print(f"|{'-' * 13}|{'-' * 9}|{'-' * 14}|{'-' * 10}|{'-' * 20}|")
    for endpoint in options.endpoints:
        for num_streams in options.streams:
            await row(Target(
                host=host, model=MODEL_ID, endpoint=endpoint, body=dict(DIALECTS["ringserve"]),
                is_streamed=True, timeout_s=60.0,
                form=PromptForm(first_id=1_000, last_id=20_000)
                if endpoint == "completions"
                else PromptForm(first_id=0, last_id=9, words=tuple("abcdefghij")),
            ), server.pid, num_streams, options.tokens)  # fmt: skip
    await host.close()


async def row(target: Target, pid: int, num_streams: int, num_tokens: int) -> None:
    """One row."""
    load = Load(
        num_requests=2 * num_streams, input_tokens=Span(least=16, most=16),
        output_tokens=Span(least=num_tokens, most=num_tokens), concurrency=num_streams,
        num_warmup=num_streams,
    )  # fmt: skip
    await drive(target, load)
    load = replace(load, num_warmup=0)
    busy_s, switches, start_s = processor_s(pid), num_switches(pid), time.perf_counter()
    await drive(target, load)
    total = load.num_requests * num_tokens
    busy_us = 1e6 * (processor_s(pid) - busy_s) / total
    rate = total / (time.perf_counter() - start_s)
    switched = (num_switches(pid) - switches) / total
    print(
        f"| {target.endpoint:11} | {num_streams:7} | {busy_us:12.0f} | {rate:8.0f} | {switched:18.2f} |",
        flush=True,
    )


def processor_s(pid: int) -> float:
    """User and system time of a process, in nanosecond steps where the system counts so."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int(Path(task, "schedstat").read_text().split()[0]) for task in tasks) / 1e9


def num_switches(pid: int) -> int:
    """How often the process's threads gave the processor up, or had to."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    lines = itertools.chain.from_iterable(Path(task, "status").read_text().splitlines() for task in tasks)
    return sum(int(line.split()[1]) for line in lines if "ctxt_switches" in line)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    result = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    result.add_argument("--model", help="whose tokenizer is used; the demo model's by default")
    result.add_argument("--endpoints", nargs="+", choices=ENDPOINTS, default=list(ENDPOINTS))
    result.add_argument("--streams", type=int, nargs="+", default=[1, 8, 64])
    result.add_argument("--tokens", type=int, default=256)
    result.add_argument("--step-ms", type=float, default=6.0)
    result.add_argument("--profile", default="")
    return result


if __name__ == "__main__":
    main()
