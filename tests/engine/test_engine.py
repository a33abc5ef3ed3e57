import asyncio
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from engine.config import SchedulingConfig, SupervisionConfig
from engine.engine import Engine
from engine.errors import (
    CheckpointError,
    ConfigError,
    ContextLengthError,
    DeadlineError,
    EngineCrashedError,
    EngineUnavailableError,
    OverloadedError,
    RequestError,
    StepError,
)
from engine.messages import Load
from engine.request import FinishReason
from engine.supervisor import EngineState
from tests.support.byte_tokenizer import ByteTokenizer
from tests.support.children import child_pids
from tests.support.manual_clock import ManualClock
from tests.support.new_request import new_request
from tests.support.played_engine import new_engine, pid_of, play, refusal, stop_by, text_of
from tests.support.scripted_command import scripted, scripted_config
from tests.support.scripted_engine import FAIL, HOLD, IGNORE, KILL, MAX_CONTEXT, REFUSE
from tests.support.until import WAIT_S, until


def test_a_request_is_streamed_to_its_end():
    async def act(engine: Engine) -> object:
        return await text_of(await engine.submit(new_request("héllo")))

    assert play(new_engine(), act) == ("héllo", [FinishReason.STOP])


def test_a_request_runs_out_of_tokens():
    async def act(engine: Engine) -> object:
        return await text_of(await engine.submit(new_request("hello", max_tokens=3)))

    assert play(new_engine(), act) == ("hel", [FinishReason.LENGTH])


def test_many_requests_are_under_way_together():
    async def act(engine: Engine) -> object:
        async def ask(number: int) -> str:
            text, _ = await text_of(await engine.submit(new_request(f"no {number}", request_id=str(number))))
            return text

        return await asyncio.gather(*(ask(number) for number in range(30)))

    assert play(new_engine(), act) == [f"no {number}" for number in range(30)]


def test_choices_and_log_probabilities_arrive():
    async def act(engine: Engine) -> object:
        stream = await engine.submit(new_request("ab", num_choices=3, logprobs=True))
        return [event async for event in stream]

    events = play(new_engine(), act)
    by_choice = {choice: [event for event in events if event.choice == choice] for choice in range(3)}
    assert all("".join(event.text for event in found) == "ab" for found in by_choice.values())
    assert all(entry.logprob == -0.5 for event in events for entry in event.logprobs)
    assert sum(len(event.logprobs) for event in events) == 6


def test_a_stop_string_finishes_the_choice_in_the_engine(capsys: pytest.CaptureFixture[str]):
    seen = ""

    async def act(engine: Engine) -> object:
        nonlocal seen
        found = await text_of(await engine.submit(new_request([*b"a stop b", HOLD], stop=("stop",))))

        def was_told() -> bool:
            nonlocal seen
            seen += capsys.readouterr().err
            return "Finish a 0\n" in seen

        await until(was_told)
        return found

    assert play(new_engine(), act) == ("a ", [FinishReason.STOP])


def test_closing_a_stream_aborts_in_the_engine(capsys: pytest.CaptureFixture[str]):
    seen = ""

    async def act(engine: Engine) -> object:
        nonlocal seen
        stream = await engine.submit(new_request([*b"ab", HOLD]))
        await anext(stream)
        await stream.aclose()
        await stream.aclose()
        await text_of(await engine.submit(new_request("z", request_id="later")))
        seen += capsys.readouterr().err

    play(new_engine(), act)
    seen += capsys.readouterr().err
    assert seen.count("Abort a\n") == 1


def test_a_failed_step_is_raised_by_the_stream():
    async def act(engine: Engine) -> object:
        stream = await engine.submit(new_request([*b"ab", FAIL], num_choices=2))
        with pytest.raises(StepError, match="by script"):
            await text_of(stream)

    play(new_engine(), act)


def test_a_refusal_of_the_engine_is_raised_by_submit():
    async def act(engine: Engine) -> object:
        return await refusal(engine, new_request([REFUSE]))

    assert play(new_engine(), act) == RequestError("refused by script", "n")


def test_a_caller_cancelled_while_it_waits_for_acceptance_aborts(capsys: pytest.CaptureFixture[str]):
    async def act(engine: Engine) -> object:
        submitting = asyncio.create_task(engine.submit(new_request([IGNORE])))
        await until(lambda: "Submit a\n" in capsys.readouterr().err)
        submitting.cancel()
        await asyncio.wait({submitting})
        await until(lambda: "Abort a\n" in capsys.readouterr().err)
        return submitting.cancelled(), await text_of(await engine.submit(new_request("x")))

    assert play(new_engine(), act) == (True, ("x", [FinishReason.STOP]))


def test_prompt_and_output_must_fit_into_the_context():
    async def act(engine: Engine) -> object:
        fitting = await engine.submit(new_request("x" * 60, max_tokens=MAX_CONTEXT - 60))
        await fitting.aclose()
        return await refusal(engine, new_request("x" * 60, max_tokens=MAX_CONTEXT - 59))

    error = play(new_engine(), act)
    assert type(error) is ContextLengthError
    assert error.message == (
        "This model's maximum context length is 100 tokens, but 101 were requested: 60 in the prompt and "
        "41 for the completion. Shorten the prompt or lower max_tokens."
    )


@pytest.mark.parametrize("token_id", [-1, 512], ids=["below", "above"])
def test_ids_outside_the_vocabulary_are_refused(token_id: int):
    async def act(engine: Engine) -> object:
        return await refusal(engine, new_request([1, token_id, 2]))

    error = play(new_engine(), act)
    assert (type(error), error.param) == (RequestError, "prompt")
    assert error.message == f"token id {token_id} is not in the vocabulary; ids go from 0 to 511"


def test_a_request_id_under_way_is_refused_and_free_again_later():
    async def act(engine: Engine) -> object:
        stream = await engine.submit(new_request([HOLD]))
        error = await refusal(engine, new_request())
        await stream.aclose()
        return error, await text_of(await engine.submit(new_request("x")))

    error, after = play(new_engine(), act)
    assert (type(error), error.param) == (RequestError, "request_id")
    assert after == ("x", [FinishReason.STOP])


def test_more_sequences_than_there_is_room_for_are_refused_until_some_end():
    scheduling = SchedulingConfig(max_running=2, max_waiting=1)

    async def act(engine: Engine) -> object:
        two = await engine.submit(new_request([HOLD], request_id="two", num_choices=2))
        error = await refusal(engine, new_request(num_choices=2))
        await two.aclose()
        return error, await text_of(await engine.submit(new_request("x", num_choices=2)))

    error, (text, _) = play(new_engine(scheduling=scheduling), act)
    assert type(error) is OverloadedError
    assert error.retry_after_s == 1.0
    assert "2 sequences are running or waiting, of at most 3" in error.message
    assert text == "xx"


def test_the_time_to_try_again_grows_with_the_queue():
    clock = ManualClock()
    engine = new_engine(clock=clock, scheduling=SchedulingConfig(max_running=1, max_waiting=3))

    async def act(engine: Engine) -> object:
        slow = await engine.submit(new_request([*b"a", HOLD]))
        await anext(slow)
        clock.jump(4.0)
        await slow.aclose()
        for number in range(4):
            await engine.submit(new_request([HOLD], request_id=str(number)))
        return (await refusal(engine, new_request())).retry_after_s

    async def run() -> object:
        await engine.start()
        await engine.wait_ready()
        try:
            return await act(engine)
        finally:
            await stop_by(clock, engine)

    assert asyncio.run(run()) == pytest.approx(3 * 4.0)


def test_more_choices_than_will_ever_fit_are_the_callers_mistake():
    async def act(engine: Engine) -> object:
        return await refusal(engine, new_request(num_choices=4))

    error = play(new_engine(scheduling=SchedulingConfig(max_running=2, max_waiting=1)), act)
    assert (type(error), error.param) == (RequestError, "n")


def test_before_ready_everything_is_refused_with_the_progress():
    async def act(engine: Engine) -> object:
        await until(lambda: engine.health().detail == "loading weights 100%")
        return await refusal(engine, new_request()), engine.card, engine.model_id

    error, card, model_id = play(new_engine("--loading", 3, "--never-ready"), act, until_ready=False)
    assert error == EngineUnavailableError(
        "the engine is starting: loading weights 100%", state="starting", retry_after_s=2.0
    )
    assert (card, model_id) == (None, "scripted-model")


def test_without_a_tokenizer_the_engine_is_not_ready():
    may_load = threading.Event()

    def load(path: Path) -> ByteTokenizer:
        assert may_load.wait(WAIT_S)
        return ByteTokenizer()

    engine = Engine(scripted_config(), load_tokenizer=load, command=scripted())

    async def act(engine: Engine) -> object:
        try:
            await until(lambda: engine.card is not None)
            health = engine.health()
            errors = [await refusal(engine, new_request())]
            for refused in (engine.encode("x"), engine.render_chat([])):
                with pytest.raises(EngineUnavailableError) as caught:
                    await refused
                errors.append(caught.value)
        finally:
            may_load.set()
        await engine.wait_ready()
        return health.state, health.detail, {error.state for error in errors}, engine.health().state

    assert play(engine, act, until_ready=False) == (
        EngineState.STARTING,
        "loading the tokenizer",
        {"starting"},
        EngineState.READY,
    )


def test_text_becomes_ids_and_ids_text():
    async def act(engine: Engine) -> object:
        ids = await engine.encode("héllo")
        chat = await engine.render_chat([{"role": "user", "content": "hi"}])
        return ids, await engine.consult(lambda tokenizer: tokenizer.decode(chat.token_ids), 10)

    assert play(new_engine(), act) == (tuple("héllo".encode()), "user:hi\n")


def test_health_tells_the_load():
    async def act(engine: Engine) -> object:
        await text_of(await engine.submit(new_request("abc")))
        await until(lambda: engine.health().load.num_steps == 3)
        health = engine.health()
        return health.state, health.detail, health.generation, health.num_restarts, type(health.load)

    assert play(new_engine(), act) == (EngineState.READY, "", 1, 0, Load)


def test_an_error_at_start_is_told_to_all_who_wait():
    async def act(engine: Engine) -> object:
        failing = asyncio.create_task(engine.wait_failed())
        with pytest.raises(ConfigError, match="window is 0"):
            await engine.wait_ready()
        return await failing, engine.health().state, await refusal(engine, new_request())

    error, state, refused = play(new_engine("--fail", "window is 0"), act, until_ready=False)
    assert error == ConfigError("window is 0")
    assert state is EngineState.FAILED
    assert (type(refused), refused.state) == (EngineUnavailableError, "failed")


def test_a_tokenizer_that_cannot_be_loaded_ends_the_engine():
    def load(path: Path) -> ByteTokenizer:
        raise CheckpointError(f"{path} has no tokenizer")

    engine = Engine(scripted_config(), load_tokenizer=load, command=scripted("--never-ready"))

    async def act(engine: Engine) -> object:
        with pytest.raises(CheckpointError, match="scripted has no tokenizer"):
            await engine.wait_ready()
        error = await engine.wait_failed()
        await until(lambda: not child_pids())
        return error, engine.health().state

    assert play(engine, act, until_ready=False) == (
        CheckpointError("scripted has no tokenizer"),
        EngineState.FAILED,
    )


def test_a_crash_ends_streams_and_the_engine_serves_again():
    clock = ManualClock()
    engine = new_engine(clock=clock)

    async def run() -> object:
        await engine.start()
        await engine.wait_ready()
        stream = await engine.submit(new_request([*b"ab", KILL]))
        with pytest.raises(EngineCrashedError, match="SIGKILL"):
            await text_of(stream)
        await until(lambda: "starting again in" in engine.health().detail)
        refused = await refusal(engine, new_request())
        still_encodes = await engine.encode("x")
        clock.jump(1.0)
        await engine.wait_ready()
        health = engine.health()
        after = await text_of(await engine.submit(new_request("again")))
        await stop_by(clock, engine)
        return refused.state, still_encodes, (health.generation, health.num_restarts), after

    assert asyncio.run(run()) == ("restarting", (120,), (2, 1), ("again", [FinishReason.STOP]))
    assert child_pids() == []


def test_too_many_crashes_are_a_failure():
    async def act(engine: Engine) -> object:
        os.kill(pid_of(engine), signal.SIGKILL)
        return await engine.wait_failed(), engine.health().state

    error, state = play(new_engine(supervision=SupervisionConfig(max_restarts=0)), act)
    assert type(error) is EngineCrashedError
    assert state is EngineState.FAILED


def test_clearing_the_cache_tells_how_many_blocks_were_forgotten():
    async def act(engine: Engine) -> object:
        await text_of(await engine.submit(new_request("hello")))
        return await asyncio.gather(engine.clear_cache(), engine.clear_cache())

    assert play(new_engine(), act) == [5, 5]


def test_clearing_the_cache_ends_with_the_engine_that_was_to_do_it():
    async def act(engine: Engine) -> object:
        os.kill(pid_of(engine), signal.SIGSTOP)
        clearing = asyncio.create_task(engine.clear_cache())
        await asyncio.sleep(0)
        os.kill(pid_of(engine), signal.SIGKILL)
        with pytest.raises(EngineCrashedError):
            await clearing
        with pytest.raises(EngineUnavailableError):
            await engine.clear_cache()

    play(new_engine(), act)


def timed_out(act: Callable[[Engine, ManualClock], Awaitable[object]]) -> object:
    """What `act` finds in an engine whose clock only it moves."""
    clock = ManualClock()
    engine = new_engine(clock=clock)

    async def run() -> object:
        await engine.start()
        try:
            await asyncio.wait_for(engine.wait_ready(), WAIT_S)
            return await asyncio.wait_for(act(engine, clock), WAIT_S)
        finally:
            await stop_by(clock, engine)

    return asyncio.run(run())


def test_a_request_that_runs_ends_when_its_time_is_over():
    async def act(engine: Engine, clock: ManualClock) -> object:
        stream = await engine.submit(replace(new_request([*b"ab", HOLD]), timeout_s=3.0))
        text = ""
        while text != "ab":
            text += (await anext(stream)).text
        clock.jump(2.9)
        clock.jump(0.2)
        with pytest.raises(DeadlineError) as caught:
            await anext(stream)
        again = await engine.submit(new_request("x"))
        return caught.value.message, await text_of(again)

    message, after = timed_out(act)
    assert "3 s, was over after 2 tokens" in message
    assert after == ("x", [FinishReason.STOP])


@pytest.mark.parametrize("is_stopped", [False, True], ids=["silent", "stopped"])
def test_a_request_that_is_never_accepted_ends_when_its_time_is_over(is_stopped: bool):
    async def act(engine: Engine, clock: ManualClock) -> object:
        if is_stopped:
            os.kill(pid_of(engine), signal.SIGSTOP)
        request = replace(new_request([*[97] * (MAX_CONTEXT - 2), IGNORE], max_tokens=1), timeout_s=3.0)
        asking = asyncio.create_task(engine.submit(request))
        await until(lambda: clock.is_awaited(3.0))
        clock.jump(3.1)
        with pytest.raises(DeadlineError) as caught:
            await asking
        return caught.value.message

    assert "after 0 tokens" in timed_out(act)


def test_a_request_that_ends_in_time_leaves_no_timer_behind():
    async def act(engine: Engine, clock: ManualClock) -> object:
        text = await text_of(await engine.submit(replace(new_request("hello"), timeout_s=3.0)))
        await asyncio.sleep(0)
        return text, clock.is_awaited(3.0)

    assert timed_out(act) == (("hello", [FinishReason.STOP]), False)


def test_each_process_is_told_the_vocabulary_once_before_its_first_grammar(
    capsys: pytest.CaptureFixture[str],
):
    engine = new_engine()

    async def act(engine: Engine) -> object:
        await text_of(await engine.submit(new_request("a", request_id="free")))
        await asyncio.gather(
            *(engine.submit(new_request("a", request_id=name, grammar='start: "a"')) for name in "bc")
        )
        os.kill(pid_of(engine), signal.SIGKILL)
        await until(lambda: engine.health().state is not EngineState.READY)
        await engine.wait_ready()
        return await text_of(await engine.submit(new_request("a", request_id="d", grammar='start: "a"')))

    play(engine, act)
    said = [
        line
        for line in capsys.readouterr().err.splitlines()
        if line.split()[:1] in (["Submit"], ["Vocabulary"])
    ]
    assert said[:2] == ["Submit free", "Vocabulary"]
    assert set(said[2:4]) == {"Submit b", "Submit c"}
    assert said[4:] == ["Vocabulary", "Submit d"]
