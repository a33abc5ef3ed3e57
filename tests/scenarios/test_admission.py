"""Limits, deadlines and the queue, seen from outside: a real server, real sockets."""

import json
import os
import signal
import socket
import urllib.error
import urllib.request
from urllib.parse import urlsplit

import pytest

from tests.support.server_process import server_process
from tests.support.tiny_model import write_tiny_checkpoint

KEYS = "inference:one\ninference:two\nadmin:chief\n"
LONG = {"model": "tiny", "prompt": [1, 2, 3], "max_tokens": 100_000, "stream": True, "ignore_eos": True}
SHORT = {"model": "tiny", "prompt": [4, 5, 6], "max_tokens": 3, "ignore_eos": True}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "keys").write_text(KEYS)
    checkpoint = write_tiny_checkpoint(folder / "model", "mistral", window=8, max_context=200_000)
    with server_process(
        str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32", "--max-running", "1",
        "--max-waiting", "4", "--max-per-key", "3", "--api-key-file", str(folder / "keys"),
    ) as running:  # fmt: skip
        running.wait_ready()
        yield running


@pytest.fixture
def busy(server):
    """A request of key one that runs until it is closed."""
    connection = connect(server, LONG, "one")
    server.wait_load(num_running=1)
    yield connection
    connection.close()
    server.wait_load(num_running=0, num_waiting=0)


def connect(server, body, key):
    """A socket on which the request was sent, and nothing read."""
    address = urlsplit(server.url)
    payload = json.dumps(body).encode()
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    connection.sendall(
        f"POST /v1/completions HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Authorization: Bearer {key}\r\nConnection: close\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    return connection


def read_all(connection):
    """Everything up to the end of the connection."""
    with connection:
        return b"".join(iter(lambda: connection.recv(1 << 16), b"")).decode()


def ask(server, body, key, path="/v1/completions"):
    """Status, headers and body of a whole answer."""
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    request = urllib.request.Request(server.url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.headers, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, json.load(error)


def test_a_key_above_its_limit_gets_429_and_another_its_place(server, busy):
    waiting = [connect(server, SHORT, "one") for _ in range(2)]
    server.wait_load(num_waiting=2)
    status, headers, body = ask(server, SHORT, "one")
    other = connect(server, SHORT, "two")
    server.wait_load(num_waiting=3)

    assert (status, body["error"]["code"]) == (429, "rate_limit_exceeded")
    assert int(headers["Retry-After"]) >= 1
    for connection in (*waiting, other):
        connection.close()


def test_a_full_queue_answers_503_at_once(server, busy):
    waiting = [connect(server, SHORT, key) for key in ("one", "one", "two", "two")]
    server.wait_load(num_waiting=4)
    status, headers, body = ask(server, SHORT, "two")

    assert (status, body["error"]["code"]) == (503, "overloaded")
    assert int(headers["Retry-After"]) >= 1
    for connection in waiting:
        connection.close()


def test_who_waits_and_goes_away_costs_no_step(server, busy):
    asked = {**SHORT, "prompt": list(range(60, 100)), "cache_debug": True}
    waiting = [
        connect(server, {**asked, "stream": is_streaming}, key)
        for key, is_streaming in (("one", True), ("one", False), ("two", True), ("two", False))
    ]
    server.wait_load(num_running=1, num_waiting=4)
    for connection in waiting:
        connection.close()
    server.wait_load(num_running=1, num_waiting=0)
    busy.close()
    server.wait_load(num_running=0)
    (choice,) = ask(server, asked, "one")[2]["choices"]

    assert choice["cache_debug"]["miss_reason"] == "never_seen"  # a step would have left it in the cache


def test_a_request_that_waits_too_long_gets_504(server, busy):
    status, headers, body = ask(server, {**SHORT, "timeout": 0.3}, "two")
    server.wait_load(num_waiting=0)

    assert (status, body["error"]["code"]) == (504, "request_timeout")
    assert headers["x-should-retry"] == "false"


def test_a_stream_whose_time_is_over_ends_with_the_error(server):
    events = read_all(connect(server, {**LONG, "timeout": 0.5}, "one"))
    server.wait_load(num_running=0)

    assert '"finish_reason":null' in events
    assert "request_timeout" in events
    assert "[DONE]" not in events


def test_a_deadline_holds_while_the_engine_process_is_stopped(server):
    pid = server.engine_pid()
    os.kill(pid, signal.SIGSTOP)
    try:
        status, _, body = ask(server, {**SHORT, "timeout": 0.3}, "one")
    finally:
        os.kill(pid, signal.SIGCONT)

    assert (status, body["error"]["code"]) == (504, "request_timeout")
    assert ask(server, SHORT, "one")[0] == 200


def test_the_cache_is_cleared_under_load_and_the_next_prompt_is_computed_anew(server, busy):
    busy.close()
    server.wait_load(num_running=0)
    prompt = {**SHORT, "prompt": list(range(1, 60)), "cache_debug": True}
    known = [ask(server, prompt, "one")[2]["choices"][0]["cache_debug"] for _ in range(2)][1]
    again = connect(server, LONG, "one")
    server.wait_load(num_running=1)
    cleared = [ask(server, {}, "chief", "/admin/cache/clear")[2]["num_forgotten_blocks"] for _ in range(2)]
    again.close()
    anew = ask(server, prompt, "one")[2]["choices"][0]["cache_debug"]

    assert (known["matched_tokens"], known["miss_reason"]) == (48, None)
    assert cleared[0] > 0
    assert (anew["matched_tokens"], anew["miss_reason"]) == (0, "never_seen")
