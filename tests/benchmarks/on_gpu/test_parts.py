"""Every part on the host with a tiny model: the script's own faults are found here."""

import math
from dataclasses import replace

import pytest
import torch

from benchmarks.on_gpu.correctness import DIALS, correctness, same_tokens
from benchmarks.on_gpu.parts import PARTS, part_named
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.report import GOALS
from benchmarks.on_gpu.timeline import busy_times

HERE = Place.choose(is_tiny=True)
QUICK = [
    "hardware",
    "batch-1",
    "first-token",
    "short-answers",
    "kernels",
    "batch-1-fp8",
    "fp8-cache",
    "formats",
]
SLOW = sorted({part.name for part in PARTS} - {*QUICK, "correctness"})


@pytest.mark.parametrize("name", QUICK)
def test_a_quick_part_runs(name):
    figures = part_named(name).measure(HERE)

    assert figures
    assert_finite(figures)


@pytest.mark.slow
@pytest.mark.parametrize("name", SLOW)
def test_a_slow_part_runs(name):
    figures = part_named(name).measure(HERE)

    assert figures
    assert not figures.get("failed")
    assert_finite(figures)


@pytest.mark.slow
def test_all_is_correct_on_the_host():
    assert correctness(HERE)["failed"] == []


def test_a_law_that_does_not_hold_is_found():
    found = same_tokens(HERE, replace(DIALS, kv_dtype="fp8"))

    assert found["holds"] is False
    assert found["differing"]


def test_rounder_formats_are_further_off():
    found = {name: error["mean"] for name, error in part_named("formats").measure(HERE).items()}

    assert found["weights bfloat16, cache auto"] < found["weights bfloat16, cache int8"] * 1.5
    assert found["weights bfloat16, cache auto"] < found["weights fp8, cache auto"] < 0.2
    assert found["weights fp8, cache auto"] <= found["weights fp8, cache fp8"] < 0.3


def test_every_goal_is_a_figure_of_a_part_that_there_is():
    assert {part for _, part, *_ in GOALS} <= {part.name for part in PARTS}


def test_kernels_that_overlap_count_once():
    spans = [(0.0, 10.0, "a"), (5.0, 12.0, "b"), (20.0, 24.0, "a")]

    found = busy_times(spans, num_steps=2)
    assert found["busy_ms"] == pytest.approx(0.008)
    assert found["span_ms"] == pytest.approx(0.012)
    assert found["idle_share"] == pytest.approx(1 / 3)
    assert found["kernels_us"] == {"a": 7.0, "b": 3.5}


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_only_a_tiny_run_is_to_be_had():
    with pytest.raises(SystemExit, match="--tiny"):
        Place.choose(is_tiny=False)


def assert_finite(figures):
    for name, value in figures.items():
        if isinstance(value, dict):
            assert_finite(value)
        elif isinstance(value, float):
            assert math.isfinite(value), name
