from benchmarks.on_gpu.report import GOALS, failures, to_markdown

DONE = {
    "hardware": {"state": "done", "seconds": 3.0, "figures": {"device": "H100"}},
    "batch-1": {"state": "done", "seconds": 9.0, "figures": {"tokens_per_s": 190.0, "memory": {"free": 1}}},
    "batch-32": {"state": "done", "seconds": 9.0, "figures": {"tokens_per_s": 4000.0}},
    "first-token": {"state": "done", "seconds": 9.0, "figures": {"first_token_ms": 47.5}},
    "serving": {"state": "skipped", "seconds": 0.1, "reason": "the package fastapi is not installed here"},
    "timeline": {"state": "out of time", "seconds": 75.0, "reason": "ended after 75 s"},
}


def line_of(load, text):
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {load}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_every_goal_has_a_line_with_its_fraction_of_the_limit():
    text = to_markdown(DONE, is_tiny=False)

    assert line_of("batch 1, 1 k context, bf16", text)[3:] == ["190", "0.91", "yes"]
    assert line_of("32 × 1 k", text)[3:] == ["4,000", "0.77", "no"]
    assert line_of("time to first token", text)[3:] == ["47.5", "0.80", "yes"]
    assert all(line_of(load, text) for load, *_ in GOALS)


def test_what_was_not_measured_says_why():
    text = to_markdown(DONE, is_tiny=False)

    assert line_of("HTTP with 256", text)[3] == "skipped"
    assert line_of("8,192 in", text)[3] == "not measured"
    assert "the package fastapi is not installed here" in text


def test_figures_within_figures_are_shown():
    assert "- memory · free: 1" in to_markdown(DONE, is_tiny=False)


def test_a_tiny_run_says_that_it_means_nothing():
    assert to_markdown(DONE, is_tiny=True).startswith("# A tiny run on the host: its figures mean nothing")


def test_parts_that_failed_and_checks_that_do_not_hold_are_complaints():
    broken = {"correctness": {"state": "done", "figures": {"failed": ["parity"]}}, **DONE}

    assert failures(broken) == ["timeline: out of time", "correctness: parity"]
