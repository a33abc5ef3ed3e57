"""A client that goes away, streaming or not, frees its blocks.

That it takes no more than two steps is shown where steps can be counted, in test_loop."""

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.support.server_process import server_process
from tests.support.tiny_model import write_tiny_checkpoint


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    checkpoint = write_tiny_checkpoint(
        tmp_path_factory.mktemp("tiny"), "mistral", window=8, max_context=200_000
    )
    with server_process(str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32") as running:
        running.wait_ready()
        yield running


@pytest.mark.parametrize("is_streaming", [True, False], ids=["streaming", "whole"])
def test_a_client_that_goes_away_frees_its_blocks(server, is_streaming):
    idle = server.wait_load(num_running=0)
    body = {
        "model": "tiny", "prompt": [1, 2, 3], "max_tokens": 100_000, "stream": is_streaming, "ignore_eos": True,
    }  # fmt: skip
    connection = _post(server.url, "/v1/completions", body)
    busy = server.wait_load(num_running=1)
    connection.close()
    after = server.wait_load(num_running=0)

    assert busy["num_free_blocks"] < idle["num_free_blocks"]
    assert after["num_free_blocks"] == idle["num_free_blocks"]


def _post(url, path, body):
    address = urlsplit(url)
    payload = json.dumps(body).encode()
    connection = socket.create_connection((address.hostname, address.port), timeout=30)
    connection.sendall(
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(payload)}\r\n\r\n".encode()
        + payload
    )
    return connection
