"""An Engine over a scripted engine process: started, played with, stopped."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.engine import Engine
from engine.errors import (
    EngineError,
)
from engine.request import FinishReason, Request
from engine.stream import TokenStream
from tests.support.byte_tokenizer import ByteTokenizer
from tests.support.children import assert_no_more_than, child_pids
from tests.support.manual_clock import ManualClock
from tests.support.scripted_command import scripted, scripted_config
from tests.support.until import WAIT_S


def new_engine(*flags: object, clock: ManualClock | None = None, **config: object) -> Engine:
    return Engine(
        scripted_config(**config),
        load_tokenizer=lambda path: ByteTokenizer(),
        command=scripted(*flags),
        clock=clock,
    )


def play(engine: Engine, act: Callable[[Engine], Awaitable[object]], *, until_ready: bool = True) -> object:
    """Start, act, stop; no process is left behind."""

    async def run() -> object:
        await engine.start()
        try:
            if until_ready:
                await asyncio.wait_for(engine.wait_ready(), WAIT_S)
            return await asyncio.wait_for(act(engine), WAIT_S)
        finally:
            await engine.stop()

    before = child_pids()
    result = asyncio.run(run())
    assert_no_more_than(before)
    return result


async def text_of(stream: TokenStream) -> tuple[str, list[FinishReason]]:
    text, reasons = "", []
    async for event in stream:
        text += event.text
        if event.finish_reason is not None:
            reasons.append(event.finish_reason)
    return text, reasons


async def refusal(engine: Engine, request: Request) -> EngineError:
    with pytest.raises(EngineError) as caught:
        await engine.submit(request)
    return caught.value


async def stop_by(clock: ManualClock, engine: Engine, drain_s: float = 0.0) -> None:
    """Stop an engine whose clock is ours."""
    stopping = asyncio.create_task(engine.stop(drain_s))
    while not stopping.done():
        await clock.advance(0.5)
        await asyncio.sleep(0.002)
    await stopping


def pid_of(engine: Engine) -> int:
    (pid,) = child_pids()
    return pid
