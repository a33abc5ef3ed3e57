"""Two real servers take turns under a real load, and the file grows."""

import json
import subprocess
import sys
import time

import psutil
import pytest

from benchmarks.side_by_side.__main__ import main, parser

PRESETS = """
[tiny]
command = ["{python}", "-m", "tests.support.event_server", "{port}"]
"""


@pytest.fixture
def presets(tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text(PRESETS)
    return path


def test_servers_take_turns_and_their_figures_are_added(presets, tmp_path, capsys):
    path = tmp_path / "results.json"
    words = ["tiny:label=a", "tiny:label=b", "--presets", str(presets), "--results", str(path)]

    status = main([*words, "--loads", "one-stream"])
    told = capsys.readouterr().out
    main(["--results", str(path)])

    records = json.loads(path.read_text())["records"]
    assert [(one["server"], one["seed"]) for one in records] == [("a", 0), ("b", 0)]
    assert all(one["loads"]["one-stream"]["num_ok"] == 5 for one in records)
    assert all(one["peak_pss_bytes"] > 1e6 for one in records)
    assert status == 0
    assert capsys.readouterr().out == told


@pytest.mark.parametrize("name", ["one-streams", "one-stream,"])
def test_an_unknown_load_is_refused(name, capsys):
    with pytest.raises(SystemExit):
        parser().parse_args(["ringserve", "--loads", name])

    assert "there are one-stream" in capsys.readouterr().err


def test_ending_it_ends_the_server_under_way(tmp_path):
    path = tmp_path / "presets.toml"
    path.write_text("""[silent]\ncommand = ["{python}", "-c", "import time; time.sleep(600)"]\n""")
    words = [sys.executable, "-m", "benchmarks.side_by_side", "silent", "--presets", str(path)]
    with subprocess.Popen(words) as program:
        watched = psutil.Process(program.pid)
        deadline = time.monotonic() + 60
        while not (servers := watched.children()):
            assert time.monotonic() < deadline
            time.sleep(0.02)  # a real process, polled within a bound
        program.terminate()

    assert psutil.wait_procs(servers, timeout=10)[1] == []
    assert program.returncode == 128 + 15
