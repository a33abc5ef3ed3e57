import argparse

import pytest

from benchmarks.load.answer import Outcome
from benchmarks.load.summary import Quantiles
from benchmarks.overload import Point, broken_promises, describe, gauge, num_doubled, num_lost, parser

KEPT = {
    "offered_per_s": 10.0,
    "good_per_s": 10.0,
    "tokens_per_s": 160.0,
    "num_requests": 100,
    "num_ok": 90,
    "refused": {"503": 10},
    "num_lost": 0,
    "num_doubled": 0,
    "max_queue": 32,
    "first_ms": Quantiles(p50=100, p90=200, p99=300, max=7000),
    "total_ms": Quantiles(p50=100, p90=200, p99=300, max=7000),
    "memory_before_bytes": 600 << 20,
    "memory_after_bytes": 610 << 20,
    "late_ms": 1.0,
    "client_cpu_share": 0.1,
}


def point(factor: float, **changed: object) -> Point:
    return Point(**{**KEPT, "factor": factor, **changed})


@pytest.fixture
def options() -> argparse.Namespace:
    return parser().parse_args([])


def outcome(**changed: object) -> Outcome:
    return Outcome(**{"due_s": 0.0, "sent_s": 0.0, "asked_tokens": 1, **changed})


def test_kept_promises_are_no_news(options):
    assert broken_promises([point(1), point(5, good_per_s=9.0)], 10.0, options) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"good_per_s": 8.9}, "goodput is 89% of that at 1 x"),
        ({"max_queue": 33}, "33 waited; --max-waiting is 32"),
        ({"first_ms": Quantiles(p50=1, p90=1, p99=1, max=7201)}, "a first token took 7201 ms; the bound is 7200 ms"),
        ({"num_lost": 1}, "1 requests were lost"),
        ({"num_doubled": 2}, "2 answers doubled"),
        ({"memory_after_bytes": 700 << 20}, "memory grew by 100 MiB"),
    ],
    ids=["goodput", "queue", "first token", "lost", "doubled", "memory"],
)  # fmt: skip
def test_a_broken_promise_is_told(options, changed, said):
    (line,) = broken_promises([point(1), point(5, **changed)], 10.0, options)

    assert said in line


def test_what_was_neither_answered_nor_refused_is_lost():
    statuses = ("ok", "503", "429", "500", "timeout", "connection", "error event")

    assert num_lost([outcome(status=status) for status in statuses]) == 4


def test_an_answer_that_two_get_and_one_that_ends_twice_are_doubled():
    outcomes = [
        outcome(answer_id="a", num_endings=1),
        outcome(answer_id="a", num_endings=1),
        outcome(answer_id="b", num_endings=2),
        outcome(),
        outcome(),
    ]

    assert num_doubled(outcomes) == 2


def test_a_gauge_is_read_from_prometheus_text():
    assert gauge("# TYPE waiting gauge\nwaiting_total 3\nwaiting 7.0\n", "waiting") == 7.0


def test_the_table_has_a_row_for_each_load(options):
    lines = describe([point(0.5), point(5)], 10.0, options).splitlines()

    assert [line.split("  ")[0] for line in lines[-2:]] == ["0.5 x", "5 x"]
