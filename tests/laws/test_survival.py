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


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_killed_engine_ends_its_streams_once_and_comes_back(checkpoint, seed):
    delay_s = random.Random(seed).uniform(0.0, 0.6)
    with server_process(str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32") as server:
        server.wait_ready()
        callers = _load(server.url)
        time.sleep(delay_s)  # the moment of the kill is the test's parameter
        victim = server.engine_pid()
        os.kill(victim, signal.SIGKILL)
        _assert_ended_once(callers)
        server.wait_ready()
        answer = _complete(server.url)
        load = server.wait_load(num_running=0, num_waiting=0)
        successor = server.engine_pid()
        exit_status = server.stop()

    assert answer.usage.completion_tokens == 3
    assert load["num_free_blocks"] > 0
    assert exit_status == 0
    assert not psutil.pid_exists(victim)
    assert not psutil.pid_exists(successor)


def test_a_stopped_engine_is_noticed_and_replaced(checkpoint):
    with server_process(
        str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32", "--step-timeout-s", "2"
    ) as server:
        server.wait_ready()
        callers = _load(server.url)
        os.kill(server.engine_pid(), signal.SIGSTOP)
        _assert_ended_once(callers)
        server.wait_ready()

        assert _complete(server.url).usage.completion_tokens == 3


def test_a_killed_server_leaves_no_engine_behind(checkpoint):
    with server_process(str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32") as server:
        server.wait_ready()
        engine = psutil.Process(server.engine_pid())
        server.process.kill()
        gone, alive = psutil.wait_procs([engine], timeout=10)

    assert gone
    assert not alive


def test_a_stopped_engine_does_not_outlive_a_killed_server(checkpoint):
    with server_process(str(checkpoint), "--served-model-name", "tiny", "--dtype", "float32") as server:
        server.wait_ready()
        engine = psutil.Process(server.engine_pid())
        engine.suspend()
        server.process.kill()
        gone, alive = psutil.wait_procs([engine], timeout=10)

    assert gone
    assert not alive
