"""The table stands in columns, and the file holds all that was measured."""

import json

from benchmarks.load.answer import Outcome
from benchmarks.load.drive import Run
from benchmarks.load.report import describe, table, write_json
from benchmarks.load.summary import summarize
from benchmarks.load.workload import Load, Span

LOAD = Load(num_requests=2, input_tokens=Span(least=7, most=7), output_tokens=Span(least=5, most=5))
GOOD = Outcome(
    due_s=10.0,
    sent_s=10.0,
    asked_tokens=5,
    status="ok",
    input_tokens=7,
    output_tokens=4,
    ended_s=11.0,
    text_times_s=[10.25, 10.5],
)
BAD = Outcome(due_s=10.5, sent_s=10.5, asked_tokens=5, status="503", message="busy", ended_s=10.6)
RUN = Run(
    load=LOAD,
    outcomes=(GOOD, BAD),
    wall_s=1.0,
    client_cpu_s=0.02,
    peak_pss_bytes=1_500_000_000,
    strangers_cpu_s=0.25,
)


def test_columns_are_as_wide_as_their_widest_cell():
    assert table([("", "p50"), ("gap", "1,234.5")]).splitlines() == [
        "         p50",
        "---  -------",
        "gap  1,234.5",
    ]


def test_the_description_tells_every_figure_that_matters():
    text = describe(summarize(RUN))

    for words in (
        "time to first text, ms      250.0",
        "4.0 output tokens/s",
        "1 of 2 requests answered in 1.00 s: 7 tokens in, 4 out",
        "1 answers had fewer tokens than asked for",
        "1 failed: 503",
        "busy",
        "1.50 GB",
        "2.0% of a core",
        "others took 25.0% of a core",
    ):
        assert words in text


def test_the_file_holds_conditions_load_figures_and_outcomes(tmp_path):
    path = tmp_path / "run.json"

    write_json(path, RUN, summarize(RUN), {"machine": "this"})

    report = json.loads(path.read_text())
    assert report["conditions"] == {"machine": "this"}
    assert report["load"]["num_requests"] == 2
    assert report["summary"]["errors"] == {"503": 1}
    assert [one["status"] for one in report["outcomes"]] == ["ok", "503"]
    assert report["outcomes"][0]["text_times_s"] == [0.25, 0.5]
    assert report["outcomes"][1]["due_s"] == 0.5
