"""Faults, each in a real server with load on it: what its callers see, and that it is whole afterwards."""

import contextlib
import json
import os
import re
import signal
import socket
import threading
from urllib.parse import urlsplit

import psutil
import pytest

from tests.scenarios.test_admission import ask, connect, read_all
from tests.support.faulty_engine import POISONS
from tests.support.faulty_server import FAULTY_EVENT, FAULTY_SPELLING, FAULTY_TEXT
from tests.support.server_process import server_process
from tests.support.tiny_model import write_tiny_checkpoint

NUM_STREAMS = 4
NEVER = {str(token_id): -100 for token_id in (FAULTY_SPELLING, FAULTY_EVENT)}
LONG = {"model": "tiny", "max_tokens": 100_000, "stream": True, "ignore_eos": True, "logit_bias": NEVER}
SHORT = {"model": "tiny", "prompt": [70, 71, 72], "max_tokens": 3, "temperature": 0, "ignore_eos": True}
FLAGS = (
    "--served-model-name", "tiny", "--dtype", "float32", "--client-timeout-s", "1",
    "--restart-window-s", "0.1", "--step-timeout-s", "3", "--no-prefix-cache", "--max-body-bytes", "64KiB",
    "--max-context", "150000",
)  # fmt: skip


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    return str(write_tiny_checkpoint(folder, "mistral", window=8, max_context=200_000))


@pytest.fixture(scope="module")
def faulty(checkpoint):
    with server_process(checkpoint, *FLAGS, program=("tests.support.faulty_server",)) as running:
        running.wait_ready()
        ask(running, SHORT, "none")
        running.whole = whole(running)
        yield running


def whole(server):
    """What must be the same after a fault as before it: free blocks, descriptors, processes, an answer."""
    status, _, answer = ask(server, SHORT, "none")
    load = server.wait_load(num_running=0, num_waiting=0)
    tree = psutil.Process(server.process.pid)
    children = [child.pid for child in tree.children(recursive=True)]
    return {
        "status": status,
        "text": answer["choices"][0]["text"],
        "free": load["num_free_blocks"],
        "processes": len(children),
        "files": tree.num_fds(),
    }


def assert_whole(server):
    """Ready again, and as before; a connection that was just closed is let go in a moment."""
    server.wait_ready()
    for _ in range(100):
        found = whole(server)
        if found == server.whole:
            break
    assert found == server.whole


class Reader(threading.Thread):
    """Reads one answer to its end."""

    def __init__(self, server, body):
        super().__init__(daemon=True)
        self.sent = ""
        self._has_left = False
        self._connection = connect(server, body, "none")
        self.start()

    def run(self):
        try:
            self.sent = read_all(self._connection)
        except (
            ConnectionResetError
        ):  # what the server still sends to one who has left is answered with a reset
            if not self._has_left:
                raise

    def leave(self):
        """Go, whatever is still to come."""
        self._has_left = True
        self._connection.shutdown(socket.SHUT_RDWR)

    @property
    def endings(self):
        """The code of each error, and a word for each [DONE]."""
        return re.findall(r'"code":\s*"(\w+)"', self.sent) + re.findall(r"data: \[(DONE)\]", self.sent)


def wait_begun(*connections):
    """Wait until each answer has begun to arrive, and take nothing of it."""
    for connection in connections:
        connection.recv(1, socket.MSG_PEEK)


def rest_of(connection):
    """What had arrived when the connection was closed, or was cut off."""
    rest = b""
    with connection, contextlib.suppress(ConnectionResetError):
        while some := connection.recv(1 << 16):
            rest += some
    return rest


def under_load(server, *bodies):
    """How `bodies` end beside streams that run already, and how those end; what still runs is cancelled."""
    beside = [Reader(server, {**LONG, "prompt": [80, 81, 82 + n]}) for n in range(NUM_STREAMS)]
    server.wait_load(num_running=NUM_STREAMS)
    hit = [Reader(server, body) for body in bodies]
    for reader in hit:
        reader.join(60)
        assert not reader.is_alive(), "an answer hangs"
    return [reader.endings for reader in hit], beside


def ended(readers):
    for reader in readers:
        reader.join(60)
        assert not reader.is_alive(), "a stream hangs"
    return [reader.endings for reader in readers]


def close(readers):
    for reader in readers:
        if reader.is_alive():
            reader.leave()
        reader.join(60)


def poisoned(stage):
    return {**LONG, "prompt": [POISONS[stage], 60, 61], "max_tokens": 5}


@pytest.mark.parametrize("stage", ["begin", "begin on the device", "finish"])
def test_a_step_without_memory_ends_its_own_requests_alone(faulty, stage):
    pid = faulty.engine_pid()
    hit, beside = under_load(faulty, poisoned(stage))
    others = ended(beside)

    assert hit == [["step_failed"]]
    assert others == [["step_failed"]] * NUM_STREAMS  # they were in the step that failed
    assert_whole(faulty)
    assert faulty.engine_pid() == pid


@pytest.mark.parametrize(
    "stage",
    [
        "commit",
        pytest.param("outbox", marks=pytest.mark.slow),
        pytest.param("intake", marks=pytest.mark.slow),
        pytest.param("plan", marks=pytest.mark.slow),
        "segfault",
        pytest.param("stop", marks=pytest.mark.slow),
    ],
)
def test_a_fault_beyond_a_step_ends_every_stream_once_and_the_engine_comes_back(faulty, stage):
    pid = faulty.engine_pid()
    hit, beside = under_load(faulty, poisoned(stage))

    assert hit == [["engine_crashed"]]
    assert ended(beside) == [["engine_crashed"]] * NUM_STREAMS
    assert_whole(faulty)
    assert not psutil.pid_exists(pid)


def test_a_fault_in_a_tokens_text_ends_that_stream_alone(faulty):
    body = {**LONG, "prompt": [60, 61], "logit_bias": {str(FAULTY_SPELLING): 100}}
    hit, beside = under_load(faulty, body)
    are_running = [reader.is_alive() for reader in beside]
    close(beside)

    assert hit == [["internal_error"]]
    assert all(are_running)
    assert_whole(faulty)


def test_a_fault_in_the_rendering_of_a_chunk_ends_that_stream_alone(faulty):
    body = {**LONG, "prompt": [60, 61], "logit_bias": {str(FAULTY_EVENT): 100}}
    hit, beside = under_load(faulty, body)
    are_running = [reader.is_alive() for reader in beside]
    close(beside)

    assert hit == [["internal_error"]]
    assert all(are_running)
    assert_whole(faulty)


@pytest.mark.parametrize("times", [1, 1000], ids=["at once", "in a thread"])
def test_a_fault_in_the_tokenizer_ends_that_request_alone(faulty, times):
    status, _, body = ask(faulty, {**SHORT, "prompt": FAULTY_TEXT * times}, "none")

    assert (status, body["error"]["code"]) == (500, "internal_error")
    assert_whole(faulty)


def test_clients_that_never_read_are_cut_off_and_hurt_nobody(faulty):
    body = {**LONG, "prompt": [60, 61], "max_tokens": 20_000, "logprobs": 5}
    stuck = [connect(faulty, body, "none") for _ in range(NUM_STREAMS)]
    wait_begun(*stuck)
    status, _, _ = ask(faulty, SHORT, "none")
    faulty.wait_load(num_running=0)
    told = [rest_of(connection) for connection in stuck]

    assert status == 200
    assert not any(b"[DONE]" in rest for rest in told)
    assert_whole(faulty)


def test_a_client_that_sends_a_byte_a_second_is_told_so_and_let_go(faulty):
    address = urlsplit(faulty.url)
    slow = socket.create_connection((address.hostname, address.port), timeout=30)
    slow.sendall(b"POST /v1/completions HTTP/1.1\r\nHost: h\r\nContent-Length: 100\r\n\r\n{")
    answer = read_all(slow)

    assert answer.startswith("HTTP/1.1 408 ")
    assert_whole(faulty)


def test_a_client_that_closes_its_half_of_the_connection_counts_as_gone(faulty):
    half = connect(faulty, {**LONG, "prompt": [60, 61]}, "none")
    wait_begun(half)
    half.shutdown(socket.SHUT_WR)
    faulty.wait_load(num_running=0)
    half.close()

    assert_whole(faulty)


@pytest.mark.parametrize(
    ("head", "status"),
    [("x-filler: " + "a" * 400_000, 431), ("content-length: 70000", 413), ("content-length: 70000x", 400)],
    ids=["head", "body", "no number"],
)
def test_what_is_too_large_is_refused(faulty, head, status):
    address = urlsplit(faulty.url)
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    connection.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{head}\r\n\r\n".encode()
    )
    head, _, body = read_all(connection).partition("\r\n\r\n")

    assert head.split()[1] == str(status)
    assert json.loads(body)["error"]["type"] == "invalid_request_error"
    assert_whole(faulty)


@pytest.mark.parametrize("count", [1000, pytest.param(10_000, marks=pytest.mark.slow)])
def test_connections_opened_and_closed_leave_nothing(faulty, count):
    address = urlsplit(faulty.url)
    pieces = [
        b"",
        b"GET /v1/mo",
        b"POST /v1/completions HTTP/1.1\r\nContent-Length: 9\r\n\r\n{",
        b"\x00\xff\r\n\r\n",
    ]
    for first in range(0, count, 100):
        opened = [socket.create_connection((address.hostname, address.port), timeout=30) for _ in range(100)]
        for number, connection in enumerate(opened, first):
            connection.sendall(pieces[number % len(pieces)])
        for connection in opened:
            connection.close()

    assert_whole(faulty)


def test_a_server_out_of_descriptors_serves_again_once_there_are_some(faulty):
    address = urlsplit(faulty.url)
    process = psutil.Process(faulty.process.pid)
    limits = process.rlimit(psutil.RLIMIT_NOFILE)
    process.rlimit(psutil.RLIMIT_NOFILE, (process.num_fds() + 10, limits[1]))
    opened = [socket.create_connection((address.hostname, address.port), timeout=30) for _ in range(30)]
    faulty.wait_line(re.compile("out of system resource"))
    for connection in opened:
        connection.close()
    status, _, _ = ask(faulty, SHORT, "none")
    process.rlimit(psutil.RLIMIT_NOFILE, limits)

    assert status == 200
    assert_whole(faulty)


def test_what_runs_is_finished_before_a_stop_and_the_rest_is_told(checkpoint):
    with server_process(checkpoint, *FLAGS, "--drain-s", "1.5") as server:
        server.wait_ready()
        endless = Reader(server, {**LONG, "prompt": [60, 61], "max_tokens": 140_000})
        server.wait_load(num_running=1)
        short = Reader(server, {**LONG, "prompt": [60, 62], "max_tokens": 100})
        server.wait_load(num_running=2)
        engine = psutil.Process(server.engine_pid())
        status = server.stop()

        assert status == 0
    assert ended([short, endless]) == [["DONE"], ["engine_unavailable"]]
    assert not engine.is_running()


def test_a_second_signal_ends_server_and_engine_at_once(checkpoint):
    with server_process(checkpoint, *FLAGS, "--drain-s", "600") as server:
        server.wait_ready()
        running = Reader(server, {**LONG, "prompt": [60, 61], "max_tokens": 140_000})
        server.wait_load(num_running=1)
        engine = psutil.Process(server.engine_pid())
        os.kill(server.process.pid, signal.SIGTERM)
        server.wait_line(re.compile("stopping"))
        os.kill(server.process.pid, signal.SIGTERM)
        status = server.process.wait(10)
        gone, _ = psutil.wait_procs([engine], timeout=10)

    assert status == 128 + signal.SIGTERM
    assert gone
    assert ended([running]) == [[]]  # cut off: no word was promised
