"""Medians, ranges and ratios are those of the records, and files are added to."""

import pytest

from benchmarks.side_by_side.contest import ROWS
from benchmarks.side_by_side.results import Results, describe, ratio

START = next(row for row in ROWS if row.figure == "first_answer_s")
SPEED = next(row for row in ROWS if row.load == "one-stream")


def results():
    """Ours three times, two peers once; the second peer's load failed in part."""
    found = Results(machine={"processor": "some", "instructions": ["a", "b"]})
    for label in ("ours", "slow", "fast"):
        found.servers[label] = {
            "version": f"{label} 1",
            "command": ["serve", label],
            "environment": {"X": "1"},
        }
    for label, speed, start in (
        ("ours", 300.0, 3.0),
        ("slow", 100.0, 1.0),
        ("fast", 150.0, 9.0),
        ("ours", 330.0, 2.0),
        ("ours", 270.0, 4.0),
    ):
        is_fast = label == "fast"
        summary = {
            "output_tokens_per_s": speed,
            "errors": {"503": 2} if is_fast else {},
            "error_message": "busy" if is_fast else "",
            "strangers_cpu_share": 0.8 if is_fast else 0.01,
        }
        found.records.append(
            {
                "server": label,
                "first_answer_s": start,
                "peak_pss_bytes": None,
                "loads": {"one-stream": summary},
            }
        )
    return found


def test_the_ratio_is_to_the_fastest_where_more_is_better():
    assert ratio(SPEED, [[300.0, 330.0, 270.0], [100.0], [150.0]]) == "2.00 ×"


def test_the_ratio_is_to_the_shortest_where_less_is_better():
    assert ratio(START, [[3.0], [1.0], [9.0]]) == "3.00 ×"


@pytest.mark.parametrize("samples", [[[1.0]], [[1.0], []], [[], [1.0]]], ids=["alone", "no peer", "not ours"])
def test_there_is_no_ratio_to_nothing(samples):
    assert ratio(SPEED, samples) == "–"


def test_the_table_tells_medians_ranges_ratios_and_conditions():
    text = describe(results())

    assert "300 (270–330)" in text
    assert "2.00 ×" in text
    assert "3.00 (2.00–4.00)" in text
    assert "processor some, instructions a b" in text
    assert "slow: slow 1: X=1 serve slow" in text
    assert "fast, one-stream: {'503': 2} busy" in text


def test_what_others_disturbed_is_told():
    text = describe(results())

    assert "disturbed: fast, one-stream: others took 80% of a core" in text
    assert "disturbed: slow" not in text


def test_what_was_not_measured_has_no_row():
    assert "p99 gap" not in describe(results())
    assert "memory" not in describe(results()).split("processor")[0]


def test_results_are_read_as_they_were_written(tmp_path):
    results().save(tmp_path / "results.json")

    assert Results.load(tmp_path / "results.json") == results()


def test_there_are_none_before_the_first(tmp_path):
    assert Results.load(tmp_path / "results.json") == Results()
