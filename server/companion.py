"""A server started for one chat: found, or started as a program of its own and stopped at the end.

It runs in a session of its own, so that Ctrl-C in the terminal reaches the chat alone. This module
knows no conversation.
"""

import json
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPResponse
from types import FrameType
from typing import IO, TextIO
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

from engine import resolve
from server.settings import ChatSettings

DEFAULT_URL = "http://127.0.0.1:8000"
POLL_S = 0.1
PROBE_TIMEOUT_S = 2
STOP_TIMEOUT_S = 20
LOG_TAIL_LINES = 20
SERVER_COMMAND = (sys.executable, "-P", "-m", "server", "serve")


class CompanionError(Exception):
    """The server that was to be started for the chat did not come up; the message says why."""


@contextmanager
def server_for_chat(
    settings: ChatSettings, output: TextIO, *, command: Sequence[str] = SERVER_COMMAND
) -> Iterator[str]:
    """The address of a server to talk to: the one named, the one that runs, or one started here.

    One that runs is passed over if a model was named and it does not list that name. What was started here, by `command`, is stopped at the end, also when a signal ends the chat.
    Raises CompanionError when it does not start, and what `engine.resolve` raises.
    """
    if settings.url is not None:
        yield settings.url.rstrip("/")
    elif is_answering(DEFAULT_URL) and _is_asked_for(DEFAULT_URL, settings):
        yield DEFAULT_URL
    else:
        resolve(settings.model, cache_dir=settings.cache_dir)  # fetches here, where its progress is seen
        with (
            _end_on_signals(),
            tempfile.TemporaryFile("w+") as log,
            _started(settings, command, log) as (url, is_running),
        ):
            wait_ready(url, is_running, log, settings.start_timeout_s, output)
            yield url


def is_answering(url: str) -> bool:
    """Whether a server of ours answers at this loopback address."""
    try:
        with _open(f"{url}/health") as answer:
            return "generation" in json.load(answer)
    except (OSError, ValueError):
        return False


def _is_asked_for(url: str, settings: ChatSettings) -> bool:
    """Whether no model was named, or the server at this loopback address lists the one that was."""
    if "model" not in settings.model_fields_set:
        return True
    headers = {"Authorization": f"Bearer {settings.first_api_key}"}
    try:
        with _open(f"{url}/v1/models", headers) as answer:
            return settings.model in {model["id"] for model in json.load(answer)["data"]}
    except (OSError, ValueError, KeyError, TypeError):
        return False


@contextmanager
def _started(
    settings: ChatSettings, command: Sequence[str], log: IO[str]
) -> Iterator[tuple[str, Callable[[], bool]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    arguments = [settings.model, "--host=127.0.0.1", f"--port={port}", f"--cache-dir={settings.cache_dir}"]
    process = subprocess.Popen(  # its standard input ends with this process, however that ends
        [*command, *arguments, "--stop-at-eof"],
        stdin=subprocess.PIPE,
        stdout=log,
        stderr=log,
        start_new_session=True,
    )
    try:
        yield f"http://127.0.0.1:{port}", lambda: process.poll() is None
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        assert process.stdin is not None
        process.stdin.close()


def wait_ready(
    url: str, is_running: Callable[[], bool], log: IO[str], timeout_s: float, output: TextIO
) -> None:
    """Wait until the server at `url` takes requests, showing on one line what it is doing.

    Raises CompanionError when it ends, with what it said in `log`, or takes longer than `timeout_s`.
    """
    deadline_s = time.monotonic() + timeout_s
    shown = ""
    while (state := _readiness(url)) is not None:
        if not is_running():
            raise CompanionError(f"the server did not start; it said:\n{_tail(log)}")
        if time.monotonic() > deadline_s:
            raise CompanionError(f"the server was not ready within {timeout_s:.0f} s: {state}")
        if state != shown:
            output.write(f"\r\033[K{state}")
            output.flush()
            shown = state
        time.sleep(POLL_S)
    output.write("\r\033[K")


def _readiness(url: str) -> str | None:
    """What the server is doing until it is ready (None)."""
    try:
        with _open(f"{url}/ready"):
            return None
    except HTTPError as error:
        with error:
            return str(json.load(error)["error"]["message"])
    except OSError:
        return "starting the server"


def _open(url: str, headers: Mapping[str, str] | None = None) -> HTTPResponse:
    """GET `url` without any proxy, since it is on this machine."""
    opener = build_opener(ProxyHandler({}))
    answer: HTTPResponse = opener.open(Request(url, headers=dict(headers or {})), timeout=PROBE_TIMEOUT_S)
    return answer


def _tail(log: IO[str]) -> str:
    log.seek(0)
    return "\n".join(log.read().splitlines()[-LOG_TAIL_LINES:])


@contextmanager
def _end_on_signals() -> Iterator[None]:
    """Turn the signals that would end this process into an exit that passes through `finally`."""

    def leave(signum: int, _: FrameType | None) -> None:
        sys.exit(128 + signum)

    previous = {name: signal.signal(name, leave) for name in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for name, handler in previous.items():
            signal.signal(name, handler)
