"""Every native operation by itself: its time, and the fraction of what this machine could do.

    python benchmarks/ops.py [--threads 2] [--level amx] [--seconds 0.3]

The limits are measured first, with the same threads: how fast large arrays are read, and how many
8-bit products the level's instructions make in registers. A linear on few rows is held against the
first, one on many rows against the second, each byte and each multiply-add of the operation counted
once. So is attention: decodes against the first, chunks against half of the second, since products
of bfloat16 take twice the time. The sizes are SmolLM2-135M's, the weights random. Each figure is the
best of many calls.
"""

import argparse
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

from engine.batch import Batch, GroupBatch, LayerCache
from engine.kernels.cpu.library import library_path, load_library, supported_levels
from engine.kernels.cpu.memory import zero_bytes
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.cpu.packed import PackedWeights, StoredRows

MODEL, FFN, HEADS, KV_HEADS, HEAD = 576, 1536, 9, 3, 64
BLOCK_SIZE = 16
LINEARS = {
    "qkv": (MODEL, (576, 192, 192), "Q4_1"),
    "gate_up": (MODEL, (FFN, FFN), "Q4_1"),
    "down": (FFN, (MODEL,), "Q4_1"),
    "head": (MODEL, (49_152,), "Q8_0"),
    "down bf16": (FFN, (MODEL,), "BF16"),
}
GROUP_BYTES = {"Q4_1": 20, "Q8_0": 34, "BF16": 64}
ROW_COUNTS = (1, 8, 64, 512)
# (sequences, queries of each, positions that the last query sees)
ATTENTIONS = (
    *((rows, 1, length) for rows in (1, 8, 16) for length in (64, 640, 2000)),
    *((1, 512, length) for length in (512, 1500)),
)
CACHED_BYTES = 1 << 30
COPIES = 24  # of each weight, taken in turn, so that small ones come from memory as in a model


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What this machine can do, per second."""

    read_bytes: float
    operations: float


class Bench:
    """Times calls on one level."""

    def __init__(self, kernels: NativeKernels, seconds: float) -> None:
        self.kernels = kernels
        self._seconds = seconds

    def best_s(self, calls: list[Callable[[], object]]) -> float:
        """Seconds of one call in the best round through `calls`."""
        best, end = float("inf"), time.perf_counter() + self._seconds
        while time.perf_counter() < end:
            start = time.perf_counter()
            for call in calls:
                call()
            best = min(best, (time.perf_counter() - start) / len(calls))
        return best

    def limits(self) -> Limits:
        """Measured by the library's own loops."""
        memory = zero_bytes(256 << 20)
        rates = [self.kernels.measure_limits(memory) for _ in range(5)]
        return Limits(read_bytes=max(rate[0] for rate in rates), operations=max(rate[1] for rate in rates))


def packed(kernels: NativeKernels, in_size: int, out_sizes: tuple[int, ...], type_name: str) -> PackedWeights:
    """Random weights: bytes at random are valid blocks, if of odd values."""
    weights = PackedWeights(kernels.library, in_size, out_sizes, None)
    first_row = 0
    for size in out_sizes:
        row_bytes = in_size // 32 * GROUP_BYTES[type_name]
        stored = torch.randint(0, 60, (size, row_bytes), dtype=torch.uint8)
        weights.pack(first_row, StoredRows(type_name=type_name, stored=stored.numpy(), row_order=None))
        first_row += size
    return weights


def linear_rows(bench: Bench, limits: Limits) -> None:
    for name, (in_size, out_sizes, type_name) in LINEARS.items():
        copies = 2 if name == "head" else COPIES
        weights = [packed(bench.kernels, in_size, out_sizes, type_name) for _ in range(copies)]
        num_bytes = sum(out_sizes) * in_size // 32 * GROUP_BYTES[type_name]
        for num_rows in ROW_COUNTS if name != "head" else ROW_COUNTS[:2]:
            hidden = torch.randn(num_rows, in_size)
            calls = [lambda own=own, hidden=hidden: bench.kernels.linear(hidden, own) for own in weights]
            seconds = bench.best_s(calls)
            operations = 2 * num_rows * sum(out_sizes) * in_size
            print(
                f"| {name:10} | {type_name:4} | {num_rows:4} | {seconds * 1e6:9.1f} |"
                f" {num_bytes / seconds / limits.read_bytes:7.0%} | {operations / seconds / limits.operations:7.0%} |"
            )


def attention_rows(bench: Bench, limits: Limits) -> None:
    for num_sequences, chunk, length in ATTENTIONS:
        batch, cache = paged(num_sequences, chunk, length)
        query = torch.randn(num_sequences * chunk, HEADS, HEAD)
        angles = torch.ones(len(query), HEAD // 2)
        step = bench.kernels.prepare(batch, angles, angles)
        num_bytes = cache.keys.nbytes + cache.values.nbytes
        caches = [copied(cache) for _ in range(min(COPIES, CACHED_BYTES // num_bytes))]
        calls = [partial(bench.kernels.attend, query, own, step, None) for own in caches]
        seconds = bench.best_s(calls)
        operations = 4 * num_sequences * sum(range(length - chunk + 1, length + 1)) * HEADS * HEAD
        print(
            f"| attention  | bf16 | {num_sequences:2} x {chunk:3} of {length:4} | {seconds * 1e6:9.1f} |"
            f" {num_bytes / seconds / limits.read_bytes:7.0%} |"
            f" {2 * operations / seconds / limits.operations:7.0%} |"
        )


def copied(cache: LayerCache) -> LayerCache:
    return LayerCache(group=cache.group, keys=cache.keys.clone(), values=cache.values.clone())


def paged(num_sequences: int, chunk: int, length: int) -> tuple[Batch, LayerCache]:
    """The last `chunk` positions of sequences of `length`, their blocks in random order."""
    blocks = -(-length // BLOCK_SIZE)
    tables = torch.randperm(num_sequences * blocks).view(num_sequences, blocks)
    positions = torch.arange(length - chunk, length)
    slots = (tables[:, positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE).flatten()
    shape = (num_sequences * blocks * BLOCK_SIZE, KV_HEADS, HEAD)
    group = GroupBatch(
        window=None,
        block_size=BLOCK_SIZE,
        slots=slots,
        tables=tables,
        bases=(0,) * num_sequences,
        base_positions=torch.zeros(num_sequences, dtype=torch.int64),
    )
    batch = Batch(
        token_ids=torch.zeros(len(slots), dtype=torch.int64),
        positions=positions.repeat(num_sequences),
        wanted_rows=torch.arange(len(slots)),
        row_starts=tuple(range(0, len(slots) + 1, chunk)),
        row_bounds=torch.arange(0, len(slots) + 1, chunk),
        starts=(length - chunk,) * num_sequences,
        groups=(group,),
    )
    keys, values = torch.randn(shape).bfloat16(), torch.randn(shape).bfloat16()
    return batch, LayerCache(group=0, keys=keys, values=values)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--level", help="an instruction set; the fastest unless named")
    parser.add_argument("--seconds", type=float, default=0.3, help="how long each is timed")
    flags = parser.parse_args()
    torch.set_num_threads(1)
    kernels = NativeKernels.open(flags.threads, flags.level)
    if kernels is None:
        raise SystemExit("the kernels are not built; pip install -e . builds them in place")
    bench = Bench(kernels, flags.seconds)
    limits = bench.limits()
    levels = ", ".join(supported_levels(load_library(library_path())))
    print(f"{platform.machine()}, level {kernels.level} of {levels}, {flags.threads} threads")
    print(f"read {limits.read_bytes / 1e9:.1f} GB/s, 8-bit products {limits.operations / 1e9:.0f} GOP/s\n")
    print("| op         | type | rows | µs | of the bandwidth | of the peak |")
    print("|---|---|---|---|---|---|")
    linear_rows(bench, limits)
    attention_rows(bench, limits)


if __name__ == "__main__":
    main()
