"""Figures are what their names say, on a run small enough to count by hand."""

import pytest

from benchmarks.load.answer import Outcome
from benchmarks.load.drive import Run
from benchmarks.load.summary import Objective, Quantiles, quantile, summarize
from benchmarks.load.workload import Load, Span

LOAD = Load(num_requests=1, input_tokens=Span(least=1, most=1), output_tokens=Span(least=1, most=1))


def outcome(**changes):
    fields = {
        "due_s": 10.0,
        "sent_s": 10.001,
        "asked_tokens": 5,
        "status": "ok",
        "input_tokens": 7,
        "output_tokens": 5,
        "ended_s": 10.9,
        "text_times_s": [10.2, 10.3, 10.8],
    }
    return Outcome(**fields | changes)


def summary(*outcomes, objective=None):
    run = Run(
        load=LOAD, outcomes=outcomes, wall_s=2.0, client_cpu_s=0.1, peak_pss_bytes=None, strangers_cpu_s=0.5
    )
    return summarize(run, objective)


@pytest.mark.parametrize(
    ("share", "value"),
    [(0, 1), (0.5, 3), (0.9, 6.8), (1, 8), (1 / 3, 2)],
    ids=["least", "p50", "p90", "max", "own"],
)
def test_a_quantile_lies_between_its_neighbours(share, value):
    assert quantile([1, 2, 4, 8], share) == pytest.approx(value)


def test_quantiles_of_one_are_that_one():
    assert Quantiles.of_seconds([0.25]) == Quantiles(p50=250, p90=250, p99=250, max=250)


def test_quantiles_of_none_are_zero():
    assert Quantiles.of_seconds([]) == Quantiles(p50=0, p90=0, p99=0, max=0)


def test_quantiles_need_no_order():
    assert Quantiles.of_seconds([3.0, 1.0, 2.0]).p50 == 2_000


def test_times_count_from_when_a_request_was_due():
    figures = summary(outcome())

    assert figures.first_ms.p50 == pytest.approx(200)
    assert figures.total_ms.p50 == pytest.approx(900)
    assert figures.late_ms == pytest.approx(1)


def test_gaps_lie_between_chunks_and_token_time_counts_tokens():
    figures = summary(outcome())

    assert figures.gap_ms.max == pytest.approx(500)
    assert figures.gap_ms.p50 == pytest.approx(300)
    assert figures.token_ms.p50 == pytest.approx(600 / 4)


def test_rates_are_by_wall_time():
    figures = summary(outcome(), outcome())

    assert figures.output_tokens_per_s == 5
    assert figures.input_tokens_per_s == 7
    assert figures.requests_per_s == 1
    assert figures.client_cpu_share == 0.05
    assert figures.strangers_cpu_share == 0.25


def test_failures_are_counted_by_status_and_have_no_times():
    figures = summary(outcome(), outcome(status="503", message="busy"), outcome(status="503"))

    assert (figures.num_requests, figures.num_ok, figures.errors) == (3, 1, {"503": 2})
    assert figures.error_message == "busy"
    assert figures.output_tokens == 5


def test_answers_with_fewer_tokens_than_asked_for_are_counted():
    assert summary(outcome(), outcome(output_tokens=4)).num_short == 1


@pytest.mark.parametrize(
    ("words", "num_good"),
    [
        pytest.param("first=199", 0, id="first text too late"),
        pytest.param("first=201", 1, id="first text in time"),
        pytest.param("token=149", 0, id="tokens too slow"),
        pytest.param("token=151", 1, id="tokens fast enough"),
        pytest.param("total=899", 0, id="end too late"),
        pytest.param("first=201,token=151,total=901", 1, id="all kept"),
        pytest.param("first=199,token=151,total=901", 0, id="one of them missed"),
    ],
)
def test_good_answers_keep_the_objective(words, num_good):
    figures = summary(outcome(), outcome(status="503"), objective=Objective.read(words))

    assert figures.good_per_s == num_good / 2
    assert figures.good_share == num_good / 2


def test_without_an_objective_every_full_answer_is_good():
    assert summary(outcome(), outcome(status="503")).good_share == 0.5


def test_a_summary_is_plain_values():
    plain = summary(outcome()).to_json()

    assert plain["first_ms"]["p50"] == pytest.approx(200)
    assert plain["errors"] == {}
