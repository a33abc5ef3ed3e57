"""The parts of the measurement: what each is for, how long it may take, and how it is done."""

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.on_gpu import (
    correctness,
    decode,
    formats,
    hardware,
    kernels,
    own_tests,
    prices,
    saturated,
    serving,
    timeline,
)
from benchmarks.on_gpu.decode import Figures
from benchmarks.on_gpu.place import Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One part; it runs in a process of its own, which ends after `limit_s`."""

    name: str
    sentence: str
    limit_s: float
    measure: Callable[[Place], Figures]


PARTS = (
    Part(name="hardware", sentence="the machine and its own limits", limit_s=40, measure=hardware.hardware),
    Part(name="correctness", sentence="parity and laws", limit_s=150, measure=correctness.correctness),
    Part(name="batch-1", sentence="batch 1, 1 k context, bf16", limit_s=60, measure=decode.batch_1),
    Part(name="batch-1-fp8", sentence="batch 1, 1 k context, fp8", limit_s=60, measure=decode.batch_1_fp8),
    Part(name="batch-32", sentence="32 × 1 k decode, bf16", limit_s=60, measure=decode.batch_32),
    Part(
        name="first-token",
        sentence="time to first token, 2,048 tokens",
        limit_s=60,
        measure=decode.first_token,
    ),
    Part(
        name="long-answers",
        sentence="1000 in / 1000 out, saturated",
        limit_s=90,
        measure=saturated.long_answers,
    ),
    Part(name="short-answers", sentence="128 / 128 saturated", limit_s=75, measure=saturated.short_answers),
    Part(name="long-prompts", sentence="8,192 in / 512 out", limit_s=90, measure=saturated.long_prompts),
    Part(name="timeline", sentence="a decode step's timeline", limit_s=75, measure=timeline.timeline),
    Part(
        name="deterministic",
        sentence="the price of --deterministic",
        limit_s=75,
        measure=prices.deterministic,
    ),
    Part(name="serving", sentence="HTTP with 256 streams", limit_s=150, measure=serving.serving),
    Part(name="kernels", sentence="bandwidths of single operations", limit_s=60, measure=kernels.kernels),
    Part(
        name="recording", sentence="what recording takes and is worth", limit_s=90, measure=prices.recording
    ),
    Part(name="fp8-cache", sentence="32 × 1 k decode, 8-bit cache", limit_s=60, measure=prices.fp8_cache),
    Part(name="formats", sentence="what formats cost in accuracy", limit_s=60, measure=formats.formats),
    Part(name="tests", sentence="tests marked gpu", limit_s=400, measure=own_tests.own_tests),
)


def part_named(name: str) -> Part:
    """The part of that name."""
    return next(part for part in PARTS if part.name == name)
