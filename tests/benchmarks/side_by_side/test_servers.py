"""Servers are started as their presets say, found ready by their first answer, and ended with all they began."""

import signal
import subprocess
import sys
import urllib.request

import psutil
import pytest

from benchmarks.load.memory import process_tree
from benchmarks.side_by_side.servers import Contestant, read_presets, running

SERVER = """
import http.server, json, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
class Handler(http.server.BaseHTTPRequestHandler):
    refused = []
    def answer(self, status, body):
        text = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)
    def do_GET(self):
        self.answer(200, {"data": [{"id": "tiny"}]})
    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        is_ready = bool(self.refused)
        self.refused.append(1)
        self.answer(200 if is_ready else 503, {"usage": {}})
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
PRESETS = {
    "tiny": {
        "command": ["{python}", "-c", SERVER.replace("{", "{{").replace("}", "}}"), "{port}"],
        "version": ["{python}", "-c", "print('chatter'); print('tiny version 3')"],
        "values": {"model": "", "cores": "all"},
        "environment": {"TINY_CORES": "{cores}"},
        "dialect": "vllm",
    },
    "dead": {"command": ["{python}", "-c", "raise SystemExit('no weights')"], "values": {}},
    "other": {"command": [], "values": {"command": ""}},
}


def test_values_are_filled_in_and_the_port_is_not():
    contestant = Contestant.read("tiny:cores=0-1,label=mine", PRESETS)

    assert contestant.label == "mine"
    assert contestant.command[0] == sys.executable
    assert contestant.command[-1] == "{port}"
    assert contestant.environment == {"TINY_CORES": "0-1"}
    assert contestant.dialect == "vllm"


def test_without_a_label_a_server_is_called_as_it_was_written():
    assert Contestant.read("tiny:cores=0", PRESETS).label == "tiny:cores=0"


def test_any_command_may_be_given():
    contestant = Contestant.read("other:command=./serve --port {port}", PRESETS)

    assert contestant.command == ("./serve", "--port", "{port}")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("tinny", "is no preset; there are tiny", id="preset"),
        pytest.param("tiny:core=1", "tiny has no value core", id="value"),
        pytest.param("tiny:cores", "write name=value", id="no value"),
    ],
)
def test_what_is_not_known_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Contestant.read(text, PRESETS)


def test_the_version_is_the_line_that_says_so():
    assert Contestant.read("tiny", PRESETS).ask_version() == "tiny version 3"


def test_a_server_is_ready_when_it_has_answered_and_gone_with_its_children_after_the_block(tmp_path):
    contestant = Contestant.read("tiny", PRESETS)

    with running(contestant, tmp_path / "log", patience_s=60) as server:
        tree = [psutil.Process(pid) for pid in process_tree(server.pid)]
        with urllib.request.urlopen(f"{server.url}/v1/models", timeout=10) as answer:
            status = answer.status

    assert status == 200
    assert server.first_answer_s > 0
    assert len(tree) == 2
    assert psutil.wait_procs(tree, timeout=10)[1] == []
    assert '"POST /v1/completions HTTP/1.1" 503' in (tmp_path / "log").read_text()


def test_a_server_that_dies_is_told_with_its_last_words(tmp_path):
    with (
        pytest.raises(RuntimeError, match="no weights"),
        running(Contestant.read("dead", PRESETS), tmp_path / "log", patience_s=60),
    ):
        pass


@pytest.mark.parametrize("name", list(read_presets()))
def test_every_preset_can_be_filled_in(name):
    contestant = Contestant.read(f"{name}:", read_presets())

    assert all("{" not in word.replace("{port}", "") for word in contestant.command)


def test_presets_of_a_file_stand_over_the_built_in_ones(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('[mine]\ncommand = ["serve", "{port}"]\n')

    presets = read_presets(path)

    assert Contestant.read("mine", presets).command == ("serve", "{port}")
    assert "ringserve" in presets


def test_a_signal_amid_a_start_leaves_no_process(tmp_path, monkeypatch):
    started = []

    class Interrupted(subprocess.Popen):
        def __init__(self, *words, **options):
            super().__init__(*words, **options)
            started.append(psutil.Process(self.pid))
            signal.raise_signal(signal.SIGTERM)  # before its maker has it in hand

    monkeypatch.setattr(subprocess, "Popen", Interrupted)
    before = signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    try:
        with (
            pytest.raises(SystemExit, match="143"),
            running(Contestant.read("tiny", PRESETS), tmp_path / "log", 60),
        ):
            pass
    finally:
        signal.signal(signal.SIGTERM, before)

    assert psutil.wait_procs(started, timeout=10)[1] == []
