"""The engine is stopped: while it works, starts, pauses; patiently and at once."""

import asyncio
import os
import signal

import pytest

from engine.engine import Engine
from engine.errors import (
    EngineCrashedError,
    EngineUnavailableError,
)
from engine.request import FinishReason
from engine.supervisor import EngineState
from tests.support.children import child_pids
from tests.support.manual_clock import ManualClock
from tests.support.new_request import new_request
from tests.support.played_engine import new_engine, pid_of, play, refusal, stop_by, text_of
from tests.support.scripted_engine import HOLD
from tests.support.until import WAIT_S, until


def test_stopping_lets_streams_finish_that_can():
    async def act(engine: Engine) -> object:
        stream = await engine.submit(new_request("hello"))
        reading = asyncio.create_task(text_of(stream))
        await engine.stop(drain_s=WAIT_S)
        return await reading, engine.health().state

    assert play(new_engine(), act) == (("hello", [FinishReason.STOP]), EngineState.STOPPED)


def test_stopping_ends_streams_that_do_not_finish_in_time():
    clock = ManualClock()
    engine = new_engine(clock=clock)

    async def run() -> object:
        await engine.start()
        await engine.wait_ready()
        stream = await engine.submit(new_request([*b"ab", HOLD]))
        stopping = asyncio.create_task(engine.stop(drain_s=5.0))
        await clock.advance(4.5)
        await asyncio.sleep(0.01)
        states = [engine.health().state, (await refusal(engine, new_request(request_id="b"))).state]
        was_stopping = not stopping.done()
        while not stopping.done():
            await clock.advance(0.5)
            await asyncio.sleep(0.002)
        with pytest.raises(EngineUnavailableError) as caught:
            await text_of(stream)
        states += [caught.value.state, engine.health().state]
        states += [(await refusal(engine, new_request(request_id="b"))).state]
        return was_stopping, states

    assert asyncio.run(run()) == (True, ["draining", "draining", "stopping", "stopped", "stopped"])
    assert child_pids() == []


@pytest.mark.parametrize("flag", ["--ignore-drain", "--stay"])
def test_an_engine_that_ignores_what_it_is_told_is_stopped_all_the_same(flag: str):
    clock = ManualClock()
    engine = new_engine(flag, clock=clock)

    async def run() -> None:
        await engine.start()
        await engine.wait_ready()
        await stop_by(clock, engine, drain_s=2.0)

    asyncio.run(run())

    assert engine.health().state is EngineState.STOPPED
    assert child_pids() == []


def test_the_shortest_drain_counts():
    async def act(engine: Engine) -> object:
        stream = await engine.submit(new_request([HOLD]))
        patient = asyncio.create_task(engine.stop(drain_s=3600.0))
        await asyncio.sleep(0)
        await engine.stop()
        await patient
        with pytest.raises(EngineUnavailableError):
            await text_of(stream)

    play(new_engine(), act)


def test_a_crash_while_draining_ends_the_wait():
    async def act(engine: Engine) -> object:
        stream = await engine.submit(new_request([HOLD]))
        stopping = asyncio.create_task(engine.stop(drain_s=3600.0))
        await asyncio.sleep(0)
        os.kill(pid_of(engine), signal.SIGKILL)
        await stopping
        with pytest.raises(EngineCrashedError):
            await text_of(stream)

    play(new_engine(), act)


def test_stopping_during_start_up_and_in_a_pause_is_quick_and_clean():
    async def during_start(engine: Engine) -> object:
        waiting = asyncio.create_task(engine.wait_ready())
        await until(lambda: engine.health().detail)
        await engine.stop(drain_s=3600.0)
        with pytest.raises(EngineUnavailableError):
            await waiting

    async def in_pause(engine: Engine) -> object:
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(lambda: "starting again in" in engine.health().detail)
        await engine.stop(drain_s=3600.0)

    play(new_engine("--loading", 1, "--never-ready"), during_start, until_ready=False)
    play(new_engine(), in_pause)


def test_stopping_at_once_before_and_after_is_safe():
    async def run() -> EngineState:
        await new_engine().stop()
        engine = new_engine()
        await engine.start()
        await engine.stop()
        await engine.stop(drain_s=1.0)
        with pytest.raises(EngineUnavailableError):
            await engine.encode("x")
        return engine.health().state

    assert asyncio.run(run()) is EngineState.STOPPED
    assert child_pids() == []


def test_a_cancelled_stop_can_be_repeated():
    async def act(engine: Engine) -> object:
        await engine.submit(new_request([HOLD]))
        stopping = asyncio.create_task(engine.stop(drain_s=3600.0))
        await asyncio.sleep(0)
        stopping.cancel()
        await asyncio.wait({stopping})
        state = engine.health().state
        await engine.stop()
        return state, engine.health().state

    assert play(new_engine(), act) == (EngineState.DRAINING, EngineState.STOPPED)


def test_being_stopped_is_no_failure():
    async def act(engine: Engine) -> object:
        failing = asyncio.create_task(engine.wait_failed())
        await engine.stop()
        await asyncio.sleep(0)
        was_silent = not failing.done()
        failing.cancel()
        await asyncio.wait({failing})
        return was_silent

    assert play(new_engine(), act) is True
