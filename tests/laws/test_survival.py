"""Law 12: kill the engine process at any moment, or stop its loop: every stream ends once, no process
is left behind, and a later request succeeds.
"""

import os
import random
import signal
import threading
import time

import openai
import psutil
import pytest

from tests.support.server_process import server_process
from tests.support.tiny_model import write_tiny_checkpoint

NUM_STREAMS = 6


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_tiny_checkpoint(tmp_path_factory.mktemp("tiny"), "mistral", window=8, max_context=200_000)


def of_tiny(checkpoint):
    return str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32"


class Caller(threading.Thread):
    """Streams one long completion, and notes how it ended."""

    def __init__(self, url: str, number: int) -> None:
        super().__init__(daemon=True)
        self.client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
        self.number = number
        self.endings: list[object] = []
        self.num_chunks = 0

    def run(self) -> None:
        try:
            stream = self.client.completions.create(
                model="tiny",
                prompt=[5, 6, 7, self.number],
                max_tokens=4000,
                stream=True,
                extra_body={"ignore_eos": True},
            )
            for chunk in stream:
                self.num_chunks += 1
                self.endings += [choice.finish_reason for choice in chunk.choices if choice.finish_reason]
        except openai.APIError as error:
            self.endings.append(error)
        finally:
            self.client.close()


def _load(url):
    callers = [Caller(url, number) for number in range(NUM_STREAMS)]
    for caller in callers:
        caller.start()
    return callers


def _assert_ended_once(callers):
    for caller in callers:
        caller.join(60)
        assert not caller.is_alive(), "a stream hangs"
        assert len(caller.endings) == 1
        assert isinstance(caller.endings[0], openai.APIError)


def _complete(url):
    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=60)
    with client:
        return client.completions.create(
            model="tiny", prompt=[1, 2, 3], max_tokens=3, extra_body={"ignore_eos": True}
        )


def _kill_under_load(server, delay_s):
    """Kill the engine so long after its work began, see its end and its successor; its pid."""
    server.wait_ready()
    callers = _load(server.url)
    time.sleep(delay_s)  # the moment of the kill is the test's parameter
    victim = server.engine_pid()
    os.kill(victim, signal.SIGKILL)
    _assert_ended_once(callers)
    server.wait_ready()
    assert _complete(server.url).usage.completion_tokens == 3
    assert server.wait_load(num_running=0, num_waiting=0)["num_free_blocks"] > 0
    return victim


def test_a_killed_engine_ends_its_streams_once_and_comes_back_each_time(checkpoint):
    with server_process(*of_tiny(checkpoint), "--restart-window-s", "0.1") as server:
        victims = [_kill_under_load(server, random.Random(seed).uniform(0.0, 0.6)) for seed in (1, 2, 3)]
        successor = server.engine_pid()
        exit_status = server.stop()

    assert exit_status == 0
    assert len({*victims, successor}) == 4
    assert not any(psutil.pid_exists(pid) for pid in (*victims, successor))


def test_a_stopped_engine_is_noticed_and_replaced(checkpoint):
    with server_process(*of_tiny(checkpoint), "--step-timeout-s", "2") as server:
        server.wait_ready()
        callers = _load(server.url)
        os.kill(server.engine_pid(), signal.SIGSTOP)
        _assert_ended_once(callers)
        server.wait_ready()

        assert _complete(server.url).usage.completion_tokens == 3


def test_a_killed_server_leaves_no_engine_behind(checkpoint):
    with server_process(*of_tiny(checkpoint)) as server:
        server.wait_ready()
        engine = psutil.Process(server.engine_pid())
        server.process.kill()
        gone, alive = psutil.wait_procs([engine], timeout=10)

    assert gone
    assert not alive


def test_a_stopped_engine_does_not_outlive_a_killed_server(checkpoint):
    with server_process(*of_tiny(checkpoint)) as server:
        server.wait_ready()
        engine = psutil.Process(server.engine_pid())
        engine.suspend()
        server.process.kill()
        gone, alive = psutil.wait_procs([engine], timeout=10)

    assert gone
    assert not alive
