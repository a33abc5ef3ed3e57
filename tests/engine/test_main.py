"""The engine process, run as the program it is."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from engine.channel import BlockingEnd, channel_pair
from engine.config import EngineConfig, ModelConfig
from engine.messages import Accepted, Configure, Failed, Loading, Pulse, Ready, Submit, Updates
from tests.support.threaded_engine import tiny_request
from tests.support.tiny_model import write_tiny_checkpoint

REPOSITORY = Path(__file__).resolve().parents[2]
CORE_ONLY = """
import sys
from engine.__main__ import main
status = main(sys.argv[1:])
front = [f"engine.{n}" for n in ("engine", "supervisor", "stream", "text")]
loaded = [n for n in sys.modules if n in front or n.split(".")[0] in ("server", "fastapi", "transformers", "uvicorn")]
print("LOADED", loaded, file=sys.stderr)
sys.exit(status)
"""
COLLECTING = """
import gc, sys
from engine.__main__ import main
status = main(sys.argv[1:])
print("COLLECTS", gc.isenabled(), "FROZE", gc.get_freeze_count() > 10_000, file=sys.stderr)
sys.exit(status)
"""


@pytest.fixture
def start():
    """Start the program; a function that gives the process and our end of its channel."""
    started = []

    def run(path, *program):
        ours, theirs = channel_pair()
        process = subprocess.Popen(
            [sys.executable, *(program or ("-m", "engine")), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            text=True,
        )
        theirs.close()
        channel = BlockingEnd(ours)
        started.append((process, channel))
        model = ModelConfig(path=str(path), model_id="tiny", device="cpu", dtype="float32")
        channel.send(Configure(config=EngineConfig(model=model)))
        return process, channel

    yield run
    for process, channel in started:
        channel.close()
        process.kill()
        process.communicate()


def receive_until(channel, kind):
    while not isinstance(message := channel.receive(), kind):
        assert isinstance(message, Loading | Accepted | Pulse | Updates), message
    return message


def test_it_serves_until_the_channel_ends_and_loads_no_front_module(start, tmp_path):
    process, channel = start(write_tiny_checkpoint(tmp_path), "-c", CORE_ONLY)
    receive_until(channel, Ready)
    channel.send(Submit(request=tiny_request("r", (1, 2, 3), max_tokens=2), first_sequence_id=0))
    tokens = []
    while len(tokens) < 2:
        tokens += receive_until(channel, Updates).token_ids
    channel.close()
    _, log = process.communicate(timeout=60)

    assert process.returncode == 0, log
    assert "LOADED []" in log


def test_once_started_it_looks_for_garbage_but_not_among_what_it_has_loaded(start, tmp_path):
    process, channel = start(write_tiny_checkpoint(tmp_path), "-c", COLLECTING)
    receive_until(channel, Ready)
    channel.close()
    _, log = process.communicate(timeout=60)

    assert "COLLECTS True FROZE True" in log


def test_signals_to_the_terminal_are_the_servers_to_order(start, tmp_path):
    process, channel = start(write_tiny_checkpoint(tmp_path))
    receive_until(channel, Ready)
    process.send_signal(signal.SIGINT)
    process.send_signal(signal.SIGTERM)

    assert isinstance(receive_until(channel, Pulse), Pulse)


def test_a_checkpoint_that_cannot_be_loaded_ends_with_status_2(start, tmp_path):
    process, channel = start(tmp_path)
    failed = receive_until(channel, Failed)

    assert str(tmp_path) in failed.error.message
    assert process.wait(60) == 2


def test_numpy_is_loaded_without_threads_of_its_own_and_children_are_not_told():
    code = (
        "import subprocess; from pathlib import Path; from engine.__main__ import NUMPY_THREADS, load_numpy;"
        "load_numpy(); import numpy; lines = Path('/proc/self/status').read_text().splitlines();"
        "told = subprocess.run(['printenv', NUMPY_THREADS], capture_output=True, text=True).stdout;"
        "print(next(line.split()[1] for line in lines if line.startswith('Threads')), told or None)"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout == "1 None\n"
