import asyncio
import logging
import os
import signal
from pathlib import Path

import pytest

from engine.config import SupervisionConfig
from engine.errors import ConfigError, EngineCrashedError, EngineError
from engine.messages import Abort
from engine.supervisor import EngineState, RestartPolicy
from tests.support.scripted_engine import EXIT, FREEZE, GARBAGE, HANG_UP, HOLD, KILL, SILENCE
from tests.support.supervised import Scene, play, text_and_error
from tests.support.until import until


def test_start_up_is_told_step_by_step():
    scene = Scene("--loading", 4, "--never-ready")

    async def act(scene: Scene) -> object:
        await until(lambda: scene.supervisor.status.detail == "loading weights 100%")
        return scene.state, scene.supervisor.status.card

    assert play(scene, act) == (EngineState.STARTING, None)


def test_ready_opens_the_door_and_brings_the_card(caplog: pytest.LogCaptureFixture):
    caplog.set_level(logging.INFO)
    scene = Scene("--loading", 2)

    async def act(scene: Scene) -> object:
        await scene.ready()
        status = scene.supervisor.status
        return status.card.model_id, status.generation, status.detail

    assert play(scene, act) == ("scripted-model", 1, "")
    assert scene.states == [EngineState.READY, EngineState.STOPPED]
    assert "engine ready generation=1" in caplog.text
    assert "ModelCard" not in caplog.text


def test_tokens_travel_both_ways_and_the_load_is_known():
    scene = Scene()

    async def act(scene: Scene) -> object:
        await scene.ready()
        opened = await scene.submit(*b"hello")
        await opened.wait_accepted()
        found = await text_and_error(opened)
        await until(lambda: scene.supervisor.status.load.num_steps == 5)
        return found

    assert play(scene, act) == ("hello", None)


@pytest.mark.parametrize(
    ("token", "how"),
    [
        (EXIT, "exit status 7"),
        (KILL, "killed by SIGKILL"),
        (GARBAGE, "killed by SIGKILL"),
        (HANG_UP, "its channel ended, but it did not"),
    ],
    ids=["exit", "killed", "noise on the channel", "channel closed"],
)
def test_a_crash_ends_every_stream_once_after_the_news_before_it(token: int, how: str):
    scene = Scene("--stay")

    async def act(scene: Scene) -> object:
        await scene.ready()
        innocent = await scene.submit(*b"xy", HOLD, request_id="innocent")
        culprit = await scene.submit(*b"ab", token, request_id="culprit")
        reading = asyncio.gather(text_and_error(innocent), text_and_error(culprit))
        while token in (GARBAGE, HANG_UP) and not reading.done():
            await scene.clock.advance(0.25)  # these outlive their channel, and are waited for
            await asyncio.sleep(0.002)
        return await reading, [event async for event in culprit.stream]

    (innocent, culprit), rest = play(scene, act)
    assert (innocent[0], culprit[0], rest) == ("xy", "ab", [])
    assert type(innocent[1]) is type(culprit[1]) is EngineCrashedError
    if token != GARBAGE:  # it lives on, or dies of it: either is right
        assert how in culprit[1].message


def test_a_request_that_waits_for_acceptance_ends_with_the_crash():
    scene = Scene()

    async def act(scene: Scene) -> object:
        await scene.ready()
        os.kill(scene.pid, signal.SIGSTOP)
        opened = await scene.submit(*b"a")
        os.kill(scene.pid, signal.SIGKILL)
        with pytest.raises(EngineCrashedError, match="SIGKILL"):
            await opened.wait_accepted()

    play(scene, act)


def test_a_crash_is_one_log_line_with_all_that_is_known(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
):
    scene = Scene("--say", "about to fail")

    async def act(scene: Scene) -> object:
        await scene.ready()
        await scene.submit(*b"xy", HOLD, request_id="innocent")
        await scene.submit(EXIT, request_id="culprit")
        await scene.paused(1.0)

    play(scene, act)

    (line,) = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    assert line == (
        "engine crashed status='exit status 7' generation=1 requests=innocent,culprit "
        "stderr='about to fail | Submit innocent | Submit culprit'"
    )
    assert "about to fail\n" in capsys.readouterr().err


def test_after_a_crash_a_new_process_serves_again():
    scene = Scene()

    async def act(scene: Scene) -> object:
        await scene.ready()
        os.kill(scene.pid, signal.SIGKILL)
        await scene.paused(1.0)
        state_in_pause = scene.state
        scene.clock.jump(1.0)
        await scene.ready(generation=2)
        found = await text_and_error(await scene.submit(*b"again"))
        return state_in_pause, found, scene.pids[0] != scene.pids[1]

    assert play(scene, act) == (EngineState.RESTARTING, ("again", None), True)
    assert scene.states == [
        EngineState.READY,
        EngineState.RESTARTING,
        EngineState.RESTARTING,
        EngineState.READY,
        EngineState.STOPPED,
    ]


def test_pauses_double_and_too_many_crashes_are_the_end(tmp_path: Path):
    scene = Scene("--dies", tmp_path / "record", 99, max_restarts=3)

    async def act(scene: Scene) -> object:
        for pause_s in (1.0, 2.0, 4.0):
            await scene.paused(pause_s)
            scene.clock.jump(pause_s)
        await until(lambda: scene.state is EngineState.FAILED)
        return scene.supervisor.status

    status = play(scene, act)
    assert (status.state, status.generation) == (EngineState.FAILED, 4)
    assert isinstance(status.error, EngineCrashedError)
    assert "crashed 4 times" in status.error.message
    assert "exit status 9" in status.error.message


def test_an_engine_that_comes_up_after_some_crashes_is_ready(tmp_path: Path):
    scene = Scene("--dies", tmp_path / "record", 2)

    async def act(scene: Scene) -> object:
        for pause_s in (1.0, 2.0):
            await scene.paused(pause_s)
            scene.clock.jump(pause_s)
        await scene.ready(generation=3)
        return scene.state

    assert play(scene, act) is EngineState.READY


def test_an_error_that_trying_again_would_not_mend_is_not_tried_again(caplog: pytest.LogCaptureFixture):
    scene = Scene("--fail", "block_size is 0")

    async def act(scene: Scene) -> object:
        await until(lambda: scene.state is EngineState.FAILED)
        return scene.supervisor.status.error, scene.supervisor.status.generation

    assert play(scene, act) == (ConfigError("block_size is 0"), 1)
    assert EngineState.RESTARTING not in scene.states
    assert "block_size is 0" not in caplog.text  # whoever awaits the engine tells it, once


def test_a_program_that_cannot_be_started_is_a_crash():
    scene = Scene(max_restarts=0)
    scene.supervisor._command = ("/no/such/program",)

    async def act(scene: Scene) -> object:
        await until(lambda: scene.state is EngineState.FAILED)
        return scene.supervisor.status.error

    assert "/no/such/program" in play(scene, act).message


@pytest.mark.parametrize("token", [FREEZE, SILENCE], ids=["stopped", "loop silent"])
def test_an_engine_whose_loop_is_silent_is_killed(token: int):
    scene = Scene(step_timeout_s=5.0)

    async def act(scene: Scene) -> object:
        await scene.ready()
        opened = await scene.submit(*b"ab", token)
        first = await anext(opened.stream)
        reading = asyncio.create_task(text_and_error(opened))
        while not reading.done():
            await scene.clock.advance(0.5)
            await asyncio.sleep(0.002)
        text, error = await reading
        return first.text + text, error.message

    text, message = play(scene, act)
    assert text == "ab"
    assert "killed after 5 s without a sign of its loop (--step-timeout-s)" in message


def test_a_start_that_takes_too_long_is_a_crash():
    scene = Scene("--never-ready", start_timeout_s=5.0, max_restarts=0)

    async def act(scene: Scene) -> object:
        while scene.state is not EngineState.FAILED:
            await scene.clock.advance(0.5)
            await asyncio.sleep(0.002)
        return scene.supervisor.status.error.message

    assert "killed after 5 s" in play(scene, act)


def test_messages_are_dropped_where_there_is_no_process():
    scene = Scene()

    async def run() -> None:
        scene.supervisor.post(Abort(request_id="a"))

    asyncio.run(run())

    assert scene.state is EngineState.STARTING


def test_a_fault_of_the_supervisor_itself_is_a_failure_not_a_silence(caplog: pytest.LogCaptureFixture):
    scene = Scene()
    scene.supervisor._command = (4711,)

    async def act(scene: Scene) -> object:
        await until(lambda: scene.state is EngineState.FAILED)
        return scene.supervisor.status.error

    assert play(scene, act) == EngineError("the supervisor of the engine process failed; see the log")
    assert "TypeError" in caplog.text


def policy(**fields: object) -> RestartPolicy:
    return RestartPolicy(SupervisionConfig(**fields))


def test_pauses_grow_to_half_a_minute():
    restarts = policy(max_restarts=7)

    pauses_s = [restarts.pause_s(0.0, was_ready=True) for _ in range(8)]

    assert pauses_s == [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, None]


def test_no_restarts_allowed_means_that_the_first_crash_is_the_end():
    assert policy(max_restarts=0).pause_s(0.0, was_ready=True) is None


def test_crashes_out_of_the_window_are_forgotten():
    restarts = policy(max_restarts=2, restart_window_s=300.0)

    pauses_s = [restarts.pause_s(now_s, was_ready=True) for now_s in (0.0, 200.0, 350.0, 400.0, 1000.0)]

    assert pauses_s == [1.0, 2.0, 2.0, None, 1.0]


def test_an_engine_that_never_gets_ready_is_not_started_for_ever():
    restarts = policy(max_restarts=2, restart_window_s=300.0)

    pauses_s = [restarts.pause_s(now_s, was_ready=False) for now_s in (0.0, 400.0, 800.0)]

    assert pauses_s == [1.0, 2.0, None]
