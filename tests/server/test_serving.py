"""Serving a fake engine in a real program, its signals, and the addresses it listens on."""

import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import pytest

from server.serving import bind
from tests.support.bodies import CHAT_PATH, STREAMED_CHAT
from tests.support.fake_engine import MODEL_ID

TIMEOUT_S = 20


class Program:
    """A server program under way."""

    def __init__(self, process: subprocess.Popen[str], url: str) -> None:
        self.process = process
        self.url = url

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self) -> tuple[int, str]:
        """Its exit status and what it logged."""
        _, log = self.process.communicate(timeout=TIMEOUT_S)
        return self.process.returncode, log

    def until(self, status_code: int) -> httpx.Response:
        """The first answer of /ready that has this status."""
        deadline = time.monotonic() + TIMEOUT_S
        with httpx.Client() as client:
            while time.monotonic() < deadline:
                with suppress(httpx.TransportError):
                    answer = client.get(self.url + "/ready")
                    if answer.status_code == status_code:
                        return answer
                time.sleep(0.01)  # a real process, polled within a bound
        raise AssertionError("it never came")


@contextmanager
def program(*arguments: str, stdin: int | None = None) -> Iterator[Program]:
    """The server of `tests.support.fake_server`, listening."""
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tests.support.fake_server", *arguments, f"--port={port}"]
    process = subprocess.Popen(command, stdin=stdin, stderr=subprocess.PIPE, text=True)
    try:
        yield Program(process, f"http://127.0.0.1:{port}")
    finally:
        process.kill()
        process.communicate()


def test_a_signal_ends_an_idle_program_with_status_zero():
    with program("observing") as server:
        server.until(200)
        server.signal(signal.SIGTERM)
        status, log = server.wait()

    before_the_end = log[: log.index("stopping")].splitlines()[:-1]
    assert status == 0
    assert f"listening address={server.url}" in log
    assert "engine begins application_loaded=False" in log
    assert before_the_end[-1].endswith(f"ready model={MODEL_ID} address={server.url}")
    assert "Traceback" not in log


def test_once_it_serves_a_program_looks_for_garbage_but_not_among_what_it_has_loaded():
    with program("observing") as server:
        server.until(200)
        server.signal(signal.SIGTERM)
        _, log = server.wait()

    assert "engine stops collecting=True has_frozen=True" in log


@pytest.mark.parametrize("line", ["listening", "engine begins"])
def test_a_signal_before_the_application_is_loaded_ends_with_status_zero(line):
    with program("observing") as server:
        for written in server.process.stderr:
            if line in written:
                break
        server.signal(signal.SIGTERM)
        status, log = server.wait()

    assert status == 0
    assert "stopping" in log
    assert "Traceback" not in log


def test_a_signal_while_the_model_is_fetched_ends_at_once_with_a_line():
    code = (
        "import signal, sys, server.serving as serving\n"
        "from engine import configure_logging\nfrom server.settings import Settings\n"
        "configure_logging('info')\n"
        "serving.resolve = lambda *_, **__: signal.raise_signal(signal.SIGTERM)\n"
        "sys.exit(serving.serve(Settings(port=0)))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )

    assert ended.returncode == 128 + signal.SIGTERM
    assert ended.stderr.count("\n") == 1
    assert "signal=SIGTERM" in ended.stderr


def test_a_program_that_was_told_so_stops_when_its_standard_input_ends():
    with program("answering", "--stop-at-eof", stdin=subprocess.PIPE) as server:
        server.until(200)
        server.process.stdin.close()
        server.process.stdin = None
        status, log = server.wait()

    assert status == 0
    assert "stopping" in log


def test_a_standard_input_that_is_no_pipe_cannot_be_waited_for():
    with program("answering", "--stop-at-eof", stdin=subprocess.DEVNULL) as server:
        status, log = server.wait()

    assert status != 0
    assert "--stop-at-eof needs a pipe" in log


def test_a_second_signal_ends_a_program_at_once():
    with program("endless", "--drain-s=600") as server:
        server.until(200)
        with httpx.stream("POST", server.url + CHAT_PATH, json=STREAMED_CHAT, timeout=TIMEOUT_S) as answer:
            lines = answer.iter_lines()
            next(lines)
            server.signal(signal.SIGINT)
            server.until(503)
            server.signal(signal.SIGINT)
            status, _ = server.wait()

    assert status == 128 + signal.SIGINT


def test_a_program_whose_setting_cannot_work_ends_with_status_two_and_the_message():
    with program("broken") as server:
        status, log = server.wait()

    assert status == 2
    assert log.count("window is -1") == 1
    assert "Traceback" not in log


def test_an_address_that_is_taken_is_refused_by_name():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"127.0.0.1 port {port}: .* in use"):
            bind("127.0.0.1", port)


def test_a_peer_that_vanishes_is_looked_for():
    with bind("127.0.0.1", 0) as listener:
        listener.listen()
        with socket.create_connection(listener.getsockname()), listener.accept()[0] as accepted:
            is_probed = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
            names = (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
            idle_s, interval_s, count = (accepted.getsockopt(socket.IPPROTO_TCP, name) for name in names)

    assert is_probed
    assert idle_s + interval_s * count <= 120


def test_a_host_that_is_not_there_is_refused_by_name():
    with pytest.raises(OSError, match=r"no\.such\.host\.invalid"):
        bind("no.such.host.invalid", 0)


def test_localhost_is_the_ipv4_loopback():
    with bind("localhost", 0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"


@pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="there is no IPv6 here")
def test_an_ipv6_address_can_be_bound():
    with bind("::1", 0) as listener:
        assert listener.family is socket.AF_INET6
