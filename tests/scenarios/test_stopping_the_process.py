"""The supervisor is stopped: at any moment, no process is left behind."""

import asyncio
import os
import signal

import pytest

from engine.supervisor import EngineState
from tests.support.children import child_pids
from tests.support.scripted_engine import GARBAGE
from tests.support.supervised import Scene, play, text_and_error
from tests.support.until import until


def test_stopping_lets_a_ready_engine_leave_by_itself(caplog: pytest.LogCaptureFixture):
    scene = Scene()

    async def act(scene: Scene) -> object:
        await scene.ready()
        process = scene.supervisor._process
        await scene.supervisor.stop()
        return process.how_it_ended, scene.state

    assert play(scene, act) == ("exit status 0", EngineState.STOPPED)


def test_stopping_kills_an_engine_that_does_not_leave():
    scene = Scene("--stay")

    async def act(scene: Scene) -> object:
        await scene.ready()
        process = scene.supervisor._process
        stopping = asyncio.create_task(scene.supervisor.stop())
        await until(lambda: scene.clock.is_awaited(2.0))
        was_alive = process.how_it_ended == "still alive"
        scene.clock.jump(2.0)
        await stopping
        return was_alive, process.how_it_ended

    assert play(scene, act) == (True, "killed by SIGKILL")


def test_stopping_kills_an_engine_that_still_starts_at_once():
    scene = Scene("--loading", 1, "--never-ready")

    async def act(scene: Scene) -> object:
        await until(lambda: scene.supervisor.status.detail)
        process = scene.supervisor._process
        await scene.supervisor.stop()
        return process.how_it_ended, scene.clock.is_awaited(2.0)

    assert play(scene, act) == ("killed by SIGKILL", False)


def test_stopping_in_a_pause_starts_nothing_any_more():
    scene = Scene()

    async def act(scene: Scene) -> object:
        await scene.ready()
        os.kill(scene.pid, signal.SIGKILL)
        await scene.paused(1.0)
        await scene.supervisor.stop()
        scene.clock.jump(60.0)
        await asyncio.sleep(0)
        return scene.supervisor.status.generation, scene.state

    assert play(scene, act) == (1, EngineState.STOPPED)


def test_stopping_while_a_crashed_process_is_put_down_reaps_and_reports_it(caplog: pytest.LogCaptureFixture):
    scene = Scene("--stay")

    async def act(scene: Scene) -> object:
        await scene.ready()
        opened = await scene.submit(GARBAGE)
        reading = asyncio.create_task(text_and_error(opened))
        while not reading.done():
            await scene.clock.advance(0.25)
            await asyncio.sleep(0)
        await scene.supervisor.stop()
        return child_pids()

    assert play(scene, act) == []
    assert "engine crashed" in caplog.text


def test_stopping_before_and_at_the_start_is_safe_and_may_be_repeated():
    async def run() -> object:
        never_started = Scene()
        await never_started.supervisor.stop()
        scene = Scene()
        scene.supervisor.start()
        await asyncio.gather(scene.supervisor.stop(), scene.supervisor.stop())
        await scene.supervisor.stop()
        return never_started.state, scene.state

    assert asyncio.run(run()) == (EngineState.STOPPED, EngineState.STOPPED)
    assert child_pids() == []


def test_a_stop_that_is_given_up_still_leaves_no_process():
    scene = Scene("--stay")

    async def act(scene: Scene) -> object:
        await scene.ready()
        stopping = asyncio.create_task(scene.supervisor.stop())
        await until(lambda: scene.clock.is_awaited(2.0))
        stopping.cancel()
        await asyncio.wait({stopping})
        return stopping.cancelled()

    assert play(scene, act) is True


def test_an_event_loop_that_ends_without_stop_leaves_no_process():
    scene = Scene()

    async def run() -> None:
        scene.supervisor.start()
        await scene.ready()

    asyncio.run(run())

    assert child_pids() == []
