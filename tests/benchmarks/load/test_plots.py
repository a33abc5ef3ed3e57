"""A picture is drawn of any run, one without text too."""

import pytest

from benchmarks.load.answer import Outcome
from benchmarks.load.drive import Run
from benchmarks.load.plots import plot
from benchmarks.load.workload import Load, Span

LOAD = Load(num_requests=1, input_tokens=Span(least=1, most=1), output_tokens=Span(least=1, most=1))
OUTCOME = Outcome(due_s=0.0, sent_s=0.0, asked_tokens=1, status="ok", ended_s=1.0)


@pytest.mark.parametrize("times_s", [[], [0.25, 0.5, 1.0]], ids=["whole", "streamed"])
def test_a_run_is_drawn(times_s, tmp_path):
    OUTCOME.text_times_s = times_s
    run = Run(
        load=LOAD,
        outcomes=(OUTCOME,),
        wall_s=1.0,
        client_cpu_s=0.0,
        peak_pss_bytes=None,
        strangers_cpu_s=None,
    )

    plot(run, tmp_path / "run.png")

    assert (tmp_path / "run.png").read_bytes().startswith(b"\x89PNG")
