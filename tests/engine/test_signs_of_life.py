import asyncio
from collections.abc import Awaitable, Callable

import pytest

from engine.channel import AsyncEnd, BlockingEnd, channel_pair
from engine.config import SupervisionConfig
from engine.errors import RequestError
from engine.messages import (
    Accepted,
    Drained,
    Load,
    Loading,
    ModelCard,
    Pulse,
    Ready,
    Refused,
    ToServer,
    Updates,
)
from engine.signs_of_life import SignsOfLife
from tests.support.manual_clock import ManualClock
from tests.support.until import until

CARD = ModelCard(
    model_id="m",
    family="f",
    device="cpu",
    dtype="float32",
    vocab_size=1,
    eos_ids=(),
    max_context=1,
    window=None,
    weight_bytes=0,
    block_size=1,
    block_bytes=1,
    num_blocks=1,
)
START_S, STEP_S = 60.0, 10.0


class Patient:
    """Stands for an EngineProcess: a real channel, and an exit that the test decides."""

    pid = 4711
    how_it_ended = "exit status 7"

    def __init__(self, channel: AsyncEnd) -> None:
        self.channel = channel
        self.exited = asyncio.get_running_loop().create_future()
        self.was_killed = False

    def kill(self) -> None:
        self.was_killed = True
        self.exited.set_result(-9)


class Ward:
    """A patient under watch, the engine's end of its channel, and what was heard."""

    def __init__(self, patient: Patient, engine: BlockingEnd) -> None:
        self.clock = ManualClock()
        self.patient = patient
        self.engine = engine
        self.heard: list[ToServer] = []
        config = SupervisionConfig(start_timeout_s=START_S, step_timeout_s=STEP_S)
        self.signs = SignsOfLife(patient, config, self.clock, hear=self.heard.append)
        self.ending = asyncio.create_task(self.signs.wait_end())

    async def say(self, message: ToServer) -> None:
        num_heard = len(self.heard)
        self.engine.send(message)
        await until(lambda: len(self.heard) > num_heard)

    async def is_over_after(self, duration_s: float) -> bool:
        await self.clock.advance(duration_s)
        return self.ending.done()


def in_ward(act: Callable[[Ward], Awaitable[object]]) -> object:
    async def run() -> object:
        ours, theirs = channel_pair()
        engine = BlockingEnd(theirs)
        ward = Ward(Patient(await AsyncEnd.open(ours)), engine)
        try:
            return await act(ward)
        finally:
            ward.ending.cancel()
            await ward.signs.close()
            await ward.patient.channel.close()
            engine.close()

    return asyncio.run(run())


def test_every_message_is_handed_on_in_order():
    async def act(ward: Ward) -> object:
        for number in range(3):
            await ward.say(Pulse(load=Load(num_steps=number)))
        return [message.load.num_steps for message in ward.heard]

    assert in_ward(act) == [0, 1, 2]


def test_an_exit_is_an_end_and_the_news_before_it_is_still_taken():
    async def act(ward: Ward) -> object:
        ward.engine.send(Pulse(load=Load()))
        ward.engine.close()
        ward.patient.exited.set_result(7)
        await ward.ending
        return await ward.signs.last_news(), len(ward.heard), ward.patient.was_killed

    assert in_ward(act) == ("exit status 7", 1, False)


def test_the_end_of_the_channel_is_an_end_and_the_exit_status_is_awaited():
    async def act(ward: Ward) -> object:
        ward.engine.close()
        await ward.ending
        concluding = asyncio.create_task(ward.signs.last_news())
        await asyncio.sleep(0.001)
        was_waiting = not concluding.done()
        ward.patient.exited.set_result(7)
        return was_waiting, await concluding

    assert in_ward(act) == (True, "exit status 7")


def test_a_process_that_outlives_its_channel_is_not_awaited_for_long():
    async def act(ward: Ward) -> object:
        ward.engine.close()
        await ward.ending
        concluding = asyncio.create_task(ward.signs.last_news())
        await asyncio.sleep(0.001)
        await ward.clock.advance(1.0)
        return await concluding

    assert in_ward(act) == "its channel ended, but it did not"


def test_noise_on_the_channel_is_an_end(caplog: pytest.LogCaptureFixture):
    async def act(ward: Ward) -> object:
        ward.engine._sock.sendall(b"\xff" * 64)
        await asyncio.wait_for(ward.ending, 10)
        ward.patient.exited.set_result(7)
        return await ward.signs.last_news()

    assert in_ward(act) == "exit status 7"
    assert "channel broken pid=4711" in caplog.text


def test_a_fault_in_taking_the_news_is_an_end(caplog: pytest.LogCaptureFixture):
    async def act(ward: Ward) -> object:
        ward.heard = None
        ward.signs._hear = lambda message: 1 // 0
        ward.engine.send(Drained())
        await asyncio.wait_for(ward.ending, 10)

    in_ward(act)

    assert "ZeroDivisionError" in caplog.text


def test_silence_after_ready_is_an_end_and_kills():
    async def act(ward: Ward) -> object:
        await ward.say(Ready(card=CARD))
        was_over_before = await ward.is_over_after(STEP_S - 0.5)
        await ward.clock.advance(0.5)
        await asyncio.wait_for(ward.ending, 10)
        return was_over_before, await ward.signs.last_news(), ward.patient.was_killed

    assert in_ward(act) == (False, "killed after 10 s without a sign of its loop (--step-timeout-s)", True)


@pytest.mark.parametrize(
    "message",
    [Updates(), Pulse(load=Load()), Drained()],
    ids=["updates", "pulse", "drained"],
)
def test_news_of_the_loop_is_a_sign_of_life(message: ToServer):
    async def act(ward: Ward) -> object:
        await ward.say(Ready(card=CARD))
        await ward.clock.advance(STEP_S - 0.5)
        await ward.say(message)
        return await ward.is_over_after(STEP_S - 0.5), await ward.is_over_after(1.0)

    assert in_ward(act) == (False, True)


@pytest.mark.parametrize(
    "message",
    [Accepted(request_id="a"), Refused(request_id="a", error=RequestError("no"))],
    ids=["accepted", "refused"],
)
def test_answers_of_the_intake_are_no_sign_of_life(message: ToServer):
    async def act(ward: Ward) -> object:
        await ward.say(Ready(card=CARD))
        await ward.clock.advance(STEP_S - 0.5)
        await ward.say(message)
        return await ward.is_over_after(1.0)

    assert in_ward(act) is True


def test_the_step_time_does_not_run_before_ready():
    async def act(ward: Ward) -> object:
        return await ward.is_over_after(START_S - 0.5), await ward.is_over_after(1.0)

    assert in_ward(act) == (False, True)


def test_progress_in_loading_gives_start_up_its_whole_time_again():
    async def act(ward: Ward) -> object:
        await ward.clock.advance(START_S - 0.5)
        await ward.say(Loading(stage="weights", done=1, total=2))
        return await ward.is_over_after(START_S - 0.5), await ward.is_over_after(1.0)

    assert in_ward(act) == (False, True)


def test_a_watch_that_was_held_up_itself_starts_its_count_again():
    async def act(ward: Ward) -> object:
        await ward.say(Ready(card=CARD))
        await ward.clock.advance(1.0)
        ward.clock.jump(10 * STEP_S)
        was_over = await ward.is_over_after(STEP_S - 0.5)
        return was_over, await ward.is_over_after(1.0)

    assert in_ward(act) == (False, True)


def test_a_timer_that_is_late_by_less_than_a_second_counts_on():
    async def act(ward: Ward) -> object:
        await ward.say(Ready(card=CARD))
        await ward.clock.advance(STEP_S - 1.0)
        ward.clock.jump(1.9)
        return await ward.is_over_after(0.25)

    assert in_ward(act) is True
