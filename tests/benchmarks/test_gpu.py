"""The command itself: parts in processes of their own, their limits, and going on where it ended."""

import json

import pytest
import torch

from benchmarks.gpu import main, measure
from benchmarks.on_gpu.parts import PARTS


def test_a_part_leaves_its_result_and_a_report_and_is_not_measured_twice(tmp_path, capsys):
    words = ["--tiny", "--out", str(tmp_path), "--only", "hardware"]
    assert main(words) == 0
    first = capsys.readouterr().out
    outcome = json.loads((tmp_path / "hardware.json").read_text())
    assert main(words) == 0

    assert outcome["state"] == "done"
    assert outcome["figures"]["torch"] == torch.__version__
    assert "hardware: the machine and its own limits … done" in first
    assert "…" not in capsys.readouterr().out
    assert "### hardware" in (tmp_path / "report.md").read_text()
    assert json.loads((tmp_path / "report.json").read_text())["hardware"] == outcome


def test_a_folder_is_named_from_where_the_command_is_given(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    assert main(["--tiny", "--out", "found", "--only", "batch-1"]) == 0
    assert json.loads((tmp_path / "found" / "batch-1.json").read_text())["state"] == "done"


def test_a_part_that_takes_too_long_is_ended_and_said_so(tmp_path):
    file = tmp_path / "batch-1.json"
    outcome = measure("batch-1", file, 0.2, is_tiny=True)

    assert outcome["state"] == "out of time"
    assert json.loads(file.read_text()) == outcome


def test_a_part_whose_process_ends_without_a_word_has_failed(tmp_path):
    outcome = measure("no such part", tmp_path / "x.json", 60.0, is_tiny=True)

    assert outcome["state"] == "failed"
    assert "invalid choice" in outcome["reason"]


def test_a_check_that_does_not_hold_is_the_exit_status(tmp_path, capsys):
    outcome = {"part": "correctness", "is_tiny": True, "state": "done", "figures": {"failed": ["parity"]}}
    (tmp_path / "correctness.json").write_text(json.dumps(outcome))

    assert main(["--tiny", "--out", str(tmp_path), "--only", "correctness"]) == 1
    assert "NOT RIGHT  correctness: parity" in capsys.readouterr().out


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so_and_measures_nothing(tmp_path):
    with pytest.raises(SystemExit, match="no CUDA device"):
        main(["--out", str(tmp_path)])


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_everything_runs_from_end_to_end(tmp_path):
    assert main(["--tiny", "--out", str(tmp_path)]) == 0

    states = {json.loads((tmp_path / f"{part.name}.json").read_text())["state"] for part in PARTS}
    assert states == {"done"}
