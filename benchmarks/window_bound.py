"""One request of a hundred windows: what it holds of the pool, of memory and of time while it grows.

    python -m benchmarks.window_bound --svg docs/window_bound.svg

Starts a server of its own for the demo model with an imposed window, lets one request grow to many
times that window, and asks the server along the way (/stats, /metrics). With `--url` it asks a running one.
"""

import argparse
import json
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.load.report import table
from benchmarks.machine import describe_machine

PATIENCE_S = 60.0
RSS = "ringserve_engine_process_resident_memory_bytes"
STEP_SUM, STEP_COUNT = "ringserve_step_duration_seconds_sum", "ringserve_step_duration_seconds_count"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """The server at one moment of the request. `step_ms` is the mean since the sample before."""

    num_tokens: int
    num_blocks: int
    rss_mib: float
    step_ms: float


def main() -> int:
    """Run, print a table, draw the picture; 1 if the sequence ever held more than its bound."""
    options = parser().parse_args()
    with _server(options) as url, httpx.Client(base_url=url, timeout=PATIENCE_S, trust_env=False) as client:
        samples, bound = measure(client, options)
    rows = [["tokens", "windows", "blocks", "without a window", "engine MiB", "step ms"]]
    for sample in samples[:: max(1, len(samples) // 12)]:
        rows.append(
            [
                str(sample.num_tokens), f"{sample.num_tokens / options.window:.0f}", str(sample.num_blocks),
                str(-(-sample.num_tokens // options.block_size)), f"{sample.rss_mib:.1f}", f"{sample.step_ms:.2f}",
            ]
        )  # fmt: skip
    print(describe_machine())
    print(
        f"window {options.window}, block {options.block_size}, bound {bound} blocks, {len(samples)} samples"
    )
    print(table(rows))
    settled = [sample for sample in samples if sample.num_tokens > 2 * options.window]
    grown_mib = settled[-1].rss_mib - settled[0].rss_mib
    print(
        f"most blocks {max(sample.num_blocks for sample in samples)} of {bound}; memory grew by {grown_mib:.1f} MiB "
        f"from {settled[0].num_tokens} to {settled[-1].num_tokens} tokens; "
        f"step {statistics.median(s.step_ms for s in settled[: len(settled) // 4]):.2f} ms in the first quarter, "
        f"{statistics.median(s.step_ms for s in settled[-(len(settled) // 4) :]):.2f} ms in the last"
    )
    if options.svg is not None:
        draw(samples, bound, options)
    return int(max(sample.num_blocks for sample in samples) > bound)


def measure(client: httpx.Client, options: argparse.Namespace) -> tuple[list[Sample], int]:
    """Let one request grow to its end, and sample the server meanwhile."""
    num_tokens = options.window * options.windows
    growing = threading.Thread(target=_grow, args=(client, num_tokens), daemon=True)
    growing.start()
    samples: list[Sample] = []
    last = _figures(client)
    bound = 0
    while growing.is_alive():
        time.sleep(options.interval_s)
        view = client.get("/stats").json()
        figures = _figures(client)
        bound = view["pool"]["sequence_blocks_bound"]
        num_steps = figures[STEP_COUNT] - last[STEP_COUNT]
        if not view["sequences"] or num_steps < 1:
            continue
        (own,) = view["sequences"]
        samples.append(
            Sample(
                num_tokens=own["num_tokens"],
                num_blocks=own["num_blocks"],
                rss_mib=figures[RSS] / 2**20,
                step_ms=1000 * (figures[STEP_SUM] - last[STEP_SUM]) / num_steps,
            )
        )
        last = figures
    return samples, bound


def draw(samples: list[Sample], bound: int, options: argparse.Namespace) -> None:
    """Blocks, memory and step time over the request's length, as SVG. Needs matplotlib, of the extra `bench`."""
    import matplotlib as mpl  # noqa: PLC0415  an optional extra

    mpl.use("Agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415  an optional extra

    mpl.rcParams["svg.hashsalt"] = "ringserve"
    lengths = [sample.num_tokens for sample in samples]
    figure, (blocks, memory, steps) = plt.subplots(1, 3, figsize=(12, 3.4), layout="constrained")
    blocks.plot(lengths, [sample.num_blocks for sample in samples], label="held")
    blocks.plot(lengths, [-(-n // options.block_size) for n in lengths], ":", label="without a window")
    blocks.axhline(bound, ls="--", lw=0.8, color="gray", label=f"bound, {bound}")
    blocks.set(title="blocks of the sequence", xlabel="tokens", yscale="log")
    blocks.legend()
    memory.plot(lengths, [sample.rss_mib for sample in samples])
    memory.set(title="engine process, MiB resident", xlabel="tokens", ylim=(0, None))
    steps.plot(lengths, [sample.step_ms for sample in samples])
    steps.set(title="ms a step", xlabel="tokens", ylim=(0, None))
    figure.savefig(options.svg, metadata={"Date": None})
    plt.close(figure)


def _grow(client: httpx.Client, num_tokens: int) -> None:
    model = client.get("/v1/models").json()["data"][0]["id"]
    body = {
        "model": model,
        "prompt": "The ring turns",
        "max_tokens": num_tokens,
        "temperature": 0.8,
        "seed": 1,
    }
    with client.stream(
        "POST", "/v1/completions", json={**body, "ignore_eos": True, "stream": True}
    ) as answer:
        assert answer.status_code == 200, answer.read()
        last = [line for line in answer.iter_lines() if line][-1]
        assert last == "data: [DONE]", last


def _figures(client: httpx.Client) -> dict[str, float]:
    lines = client.get("/metrics").text.splitlines()
    pairs = (line.rsplit(" ", 1) for line in lines if line.startswith((RSS, STEP_SUM, STEP_COUNT)))
    return {name: float(value) for name, value in pairs}


@contextmanager
def _server(options: argparse.Namespace) -> Iterator[str]:
    """The server to ask: the one named, or one started here and stopped at the end."""
    if options.url is not None:
        yield options.url
        return
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    chunk = ["--max-chunk-tokens", str(options.window), "--block-size", str(options.block_size)]
    command = [sys.executable, "-m", "server", "serve", "--port", str(port), "--window", str(options.window)]
    process = subprocess.Popen([*command, *chunk, "--log-level", "warning"])
    try:
        _wait_ready(f"http://127.0.0.1:{port}", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(PATIENCE_S)


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while time.monotonic() < end_s and process.poll() is None:
        try:
            if httpx.get(f"{url}/ready", trust_env=False).status_code == 200:
                return
        except (httpx.TransportError, json.JSONDecodeError):
            pass
        time.sleep(0.2)
    raise TimeoutError("the server did not become ready")


def parser() -> argparse.ArgumentParser:
    """What the benchmark may be told."""
    result = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    result.add_argument(
        "--url", help="a running server, with nothing else to do; its window is given as --window"
    )
    result.add_argument("--window", type=int, default=16, help="tokens that a query sees")
    result.add_argument("--windows", type=int, default=100, help="how many windows the request grows to")
    result.add_argument("--block-size", type=int, default=8, help="tokens in a block")
    result.add_argument("--interval-s", type=float, default=0.25, help="time between samples")
    result.add_argument("--svg", type=Path, help="where to draw the picture")
    return result


if __name__ == "__main__":
    sys.exit(main())
