import io
import os
import signal
import subprocess
import sys
import time

import httpx
import psutil
import pytest

from engine import ConfigError, EngineState
from server.companion import CompanionError, is_answering, server_for_chat, wait_ready
from server.settings import ChatSettings
from tests.support.fake_engine import MODEL_ID
from tests.support.hollow_checkpoint import write_hollow_checkpoint

COMMAND = (sys.executable, "-m", "tests.support.fake_server")


@pytest.fixture
def settings_for(tmp_path, monkeypatch):
    """Chat settings whose model is a folder, named as the behaviour of the fake server."""
    monkeypatch.setattr("server.companion.DEFAULT_URL", "http://127.0.0.1:1")

    def make(behaviour, **fields):
        write_hollow_checkpoint(tmp_path / behaviour)
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
        return ChatSettings(model=behaviour, cache_dir=tmp_path, **fields)

    return make


def test_a_named_server_is_taken_as_it_is():
    with server_for_chat(ChatSettings(url="http://elsewhere:5/"), io.StringIO()) as url:
        assert url == "http://elsewhere:5"


def test_a_running_server_is_found(live, monkeypatch):
    monkeypatch.setattr("server.companion.DEFAULT_URL", live.url)
    with server_for_chat(ChatSettings(), io.StringIO()) as url:
        assert url == live.url


def test_a_running_server_is_found_by_the_model_that_was_named(live, monkeypatch):
    monkeypatch.setattr("server.companion.DEFAULT_URL", live.url)
    settings = ChatSettings.from_command_line([MODEL_ID])
    with server_for_chat(settings, io.StringIO()) as url:
        assert url == live.url


def test_a_running_server_with_another_model_is_passed_over(live, settings_for, monkeypatch):
    settings = settings_for("answering")
    monkeypatch.setattr("server.companion.DEFAULT_URL", live.url)
    with server_for_chat(settings, io.StringIO(), command=COMMAND) as url:
        assert url != live.url


def test_a_default_model_counts_as_none_named(live, monkeypatch):
    monkeypatch.setattr("server.companion.DEFAULT_URL", live.url)
    with server_for_chat(ChatSettings.from_command_line([]), io.StringIO()) as url:
        assert url == live.url


def has_ended(process):
    """Whether it is gone, or waits to be reaped by somebody else."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_a_chat_that_is_killed_takes_its_server_with_it(tmp_path):
    write_hollow_checkpoint(tmp_path / "answering")
    code = (
        "import sys, server.companion as companion\nfrom server.settings import ChatSettings\n"
        "companion.DEFAULT_URL = 'http://127.0.0.1:1'\n"
        f"settings = ChatSettings(model='answering', cache_dir={str(tmp_path)!r})\n"
        f"with companion.server_for_chat(settings, sys.stderr, command={COMMAND!r}) as url:\n"
        "    print(url, flush=True)\n    sys.stdin.read()"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    chat = subprocess.Popen(
        [sys.executable, "-c", code],
        cwd=tmp_path, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    with chat:
        url = chat.stdout.readline().strip()
        [server] = psutil.Process(chat.pid).children()
        was_answering = is_answering(url)
        chat.kill()
        deadline_s = time.monotonic() + 20
        while not (ended := has_ended(server)) and time.monotonic() < deadline_s:
            time.sleep(0.05)  # a real process, polled within a bound

    assert was_answering
    assert ended


def test_nobody_is_not_answering():
    assert not is_answering("http://127.0.0.1:1")


def test_a_server_that_fails_tells_its_last_words(settings_for):
    starting = server_for_chat(settings_for("broken"), io.StringIO(), command=COMMAND)
    with pytest.raises(CompanionError, match="window is -1"), starting:
        pass


def test_a_server_that_loads_too_long_is_given_up(live):
    live.engine.state, live.engine.detail = EngineState.STARTING, "loading weights 43%"
    output = io.StringIO()
    with pytest.raises(CompanionError, match="43%"):
        wait_ready(live.url, lambda: True, io.StringIO(), 0.2, output)

    assert "loading weights 43%" in output.getvalue()


def test_a_model_that_cannot_be_found_is_refused_before_anything_starts(monkeypatch):
    monkeypatch.setattr("server.companion.DEFAULT_URL", "http://127.0.0.1:1")
    settings = ChatSettings(model="/no/such/folder")
    with pytest.raises(ConfigError), server_for_chat(settings, io.StringIO(), command=("false",)):
        pass


def test_a_started_server_is_ready_until_the_chat_ends_even_by_a_signal(settings_for):
    told = []

    def chat():
        with server_for_chat(settings_for("answering"), io.StringIO(), command=COMMAND) as url:
            told.extend((url, httpx.get(f"{url}/ready").status_code))
            signal.raise_signal(signal.SIGTERM)

    with pytest.raises(SystemExit) as caught:
        chat()

    assert caught.value.code == 128 + signal.SIGTERM
    assert told[1] == 200
    assert not is_answering(told[0])
