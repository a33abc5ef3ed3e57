import asyncio
import logging
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from engine.errors import (
    DeadlineError,
    EngineCrashedError,
    EngineError,
    EngineUnavailableError,
    RequestError,
    StepError,
)
from engine.messages import Abort, Accepted, Drained, Finish, Refused, Updates
from engine.open_request import OpenRequest
from engine.prefix_report import PrefixReport
from engine.request import FinishReason, Request, SamplingParams
from engine.stream import TokenEvent
from tests.support.new_request import new_request
from tests.support.request_world import World
from tests.support.some_scores import some_scores

STOP, LENGTH = FinishReason.STOP, FinishReason.LENGTH


async def rest(opened: OpenRequest) -> list[TokenEvent]:
    """What a reader finds now; the stream must have ended."""
    return [event async for event in opened.stream]


def brief(events: list[TokenEvent]) -> list[tuple[int, str, FinishReason | None]]:
    return [(event.choice, event.text, event.finish_reason) for event in events]


def in_loop(act: Callable[[World], object]) -> object:
    async def run() -> object:
        return await act(World())

    return asyncio.run(run())


def test_tokens_become_text_until_the_engine_ends_the_choice():
    async def act(world: World) -> object:
        opened = world.open()
        first = opened.first_sequence_id
        world.hear((first, "he", None))
        one = await anext(opened.stream)
        world.hear((first, "y", STOP))
        return one, await rest(opened), world.sent

    one, others, sent = in_loop(act)
    assert (one.text, one.token_ids, one.num_output_tokens) == ("he", (104, 101), 2)
    assert [(event.text, event.num_output_tokens, event.finish_reason) for event in others] == [
        ("y", 3, STOP)
    ]
    assert sent == []


def test_an_end_without_tokens_is_an_event_of_its_own():
    async def act(world: World) -> object:
        opened = world.open()
        world.hear((opened.first_sequence_id, "", LENGTH))
        return brief(await rest(opened))

    assert in_loop(act) == [(0, "", LENGTH)]


def test_an_end_releases_an_incomplete_character():
    async def act(world: World) -> object:
        opened = world.open()
        world.requests.hear(
            Updates(
                sequence_ids=(opened.first_sequence_id,),
                num_tokens=(2,),
                token_ids=(97, 0xE2),
                finish_reasons=(LENGTH,),
            )
        )
        return brief(await rest(opened))

    assert in_loop(act) == [(0, "a\N{REPLACEMENT CHARACTER}", LENGTH)]


def test_a_step_without_text_to_show_is_no_event():
    async def act(world: World) -> object:
        opened = world.open(stop=("xyz",))
        world.hear((opened.first_sequence_id, "xy", None))
        reading = asyncio.ensure_future(anext(opened.stream))
        await asyncio.sleep(0)
        was_waiting = not reading.done()
        world.hear((opened.first_sequence_id, "!", None))
        return was_waiting, (await reading).text

    assert in_loop(act) == (True, "xy!")


def test_a_stop_string_ends_the_choice_and_tells_the_engine():
    async def act(world: World) -> object:
        opened = world.open(stop=("lo",))
        world.hear((opened.first_sequence_id, "hello!", None))
        return brief(await rest(opened)), world.sent, world.requests.num_sequences

    assert in_loop(act) == ([(0, "hel", STOP)], [Finish(request_id="a", choice=0)], 0)


def test_a_stop_string_in_the_last_tokens_comes_before_the_engines_own_end():
    async def act(world: World) -> object:
        opened = world.open(stop=("lo",))
        world.hear((opened.first_sequence_id, "hello", LENGTH))
        return brief(await rest(opened)), world.sent

    assert in_loop(act) == ([(0, "hel", STOP)], [])


def test_late_news_of_a_choice_that_ended_is_dropped():
    async def act(world: World) -> object:
        opened = world.open(stop=("b",), num_choices=2)
        first = opened.first_sequence_id
        world.hear((first, "ab", None), (first + 1, "x", None))
        world.hear((first, "zz", LENGTH), (first + 1, "y", LENGTH))
        world.hear_failure(first, StepError("late"))
        return brief(await rest(opened)), world.sent

    assert in_loop(act) == ([(0, "a", STOP), (1, "xy", LENGTH)], [Finish(request_id="a", choice=0)])


def test_a_stream_ends_only_when_all_choices_have():
    async def act(world: World) -> object:
        opened = world.open(num_choices=2)
        first = opened.first_sequence_id
        world.hear((first + 1, "b", STOP))
        one = await anext(opened.stream)
        reading = asyncio.ensure_future(anext(opened.stream))
        await asyncio.sleep(0)
        was_waiting = not reading.done()
        world.hear((first, "a", LENGTH))
        return brief([one, await reading]), was_waiting, await rest(opened)

    assert in_loop(act) == ([(1, "b", STOP), (0, "a", LENGTH)], True, [])


def test_a_failure_of_one_choice_ends_the_stream_and_aborts_the_others():
    async def act(world: World) -> object:
        opened = world.open(num_choices=3)
        first = opened.first_sequence_id
        world.hear((first, "a", None))
        world.hear_failure(first + 1, StepError("boom"))
        event = await anext(opened.stream)
        with pytest.raises(StepError, match="boom"):
            await anext(opened.stream)
        return event.text, world.sent, world.requests.num_sequences

    assert in_loop(act) == ("a", [Abort(request_id="a")], 0)


def test_a_failure_of_the_only_choice_aborts_nothing():
    async def act(world: World) -> object:
        opened = world.open()
        world.hear_failure(opened.first_sequence_id, StepError("boom"))
        with pytest.raises(StepError, match="boom"):
            await anext(opened.stream)
        return world.sent

    assert in_loop(act) == []


def test_each_stream_gets_an_error_of_its_own():
    async def act(world: World) -> object:
        both = [world.open(request_id="a"), world.open(request_id="b")]
        request_ids = world.requests.end_all(EngineCrashedError("gone"))
        errors = []
        for opened in both:
            with pytest.raises(EngineCrashedError) as caught:
                await anext(opened.stream)
            errors.append(caught.value)
        return request_ids, errors

    request_ids, errors = in_loop(act)
    assert request_ids == ("a", "b")
    assert errors[0] == errors[1]
    assert errors[0] is not errors[1]


def test_closing_a_stream_aborts_the_request_and_forgets_it():
    async def act(world: World) -> object:
        opened = world.open(num_choices=2)
        await opened.stream.aclose()
        world.hear((opened.first_sequence_id, "a", STOP))
        return world.sent, world.requests.num_sequences, "a" in world.requests, await rest(opened)

    assert in_loop(act) == ([Abort(request_id="a")], 0, False, [])


def test_closing_a_finished_stream_does_not_touch_a_new_request_of_the_same_id():
    async def act(world: World) -> object:
        old = world.open()
        world.hear((old.first_sequence_id, "a", STOP))
        new = world.open()
        await old.stream.aclose()
        world.hear((new.first_sequence_id, "b", STOP))
        return brief(await rest(new)), world.sent

    assert in_loop(act) == ([(0, "b", STOP)], [])


def test_log_probabilities_go_to_those_that_asked_although_others_are_forgotten():
    async def act(world: World) -> object:
        forgotten = world.open(request_id="a", logprobs=True)
        without = world.open(request_id="b")
        asked = world.open(request_id="c", logprobs=True)
        await forgotten.stream.aclose()
        world.hear(
            (forgotten.first_sequence_id, "xy", None),
            (without.first_sequence_id, "uvw", STOP),
            (asked.first_sequence_id, "pq", STOP),
            logprobs=(-1.0, -2.0, -3.0, -4.0),
        )
        return await rest(without), await rest(asked)

    (without,), (asked,) = in_loop(act)
    assert without.logprobs == ()
    assert [(entry.text, entry.logprob) for entry in asked.logprobs] == [("p", -3.0), ("q", -4.0)]


def test_alternatives_are_cut_by_rows_although_some_have_none_and_some_are_forgotten():
    async def act(world: World) -> object:
        forgotten, without, asked = [
            world.open(_scoring(request_id, num_top_logprobs=num_top))
            for request_id, num_top in (("a", 2), ("b", 0), ("c", 1))
        ]
        await forgotten.stream.aclose()
        opened = (forgotten, without, asked)
        world.requests.hear(
            Updates(
                sequence_ids=tuple(each.first_sequence_id for each in opened),
                num_tokens=(1, 1, 2),
                token_ids=(97, 98, 99, 100),
                logprobs=(-1.0, -2.0, -3.0, -4.0),
                ranks=(1, 2, 3, 4),
                num_top=(2, 0, 1),
                top_ids=(97, 98, 101, 102),
                top_logprobs=(-1.0, -1.5, -0.5, -0.25),
                finish_reasons=(STOP, STOP, STOP),
            )
        )
        return await rest(without), await rest(asked)

    (without,), (asked,) = in_loop(act)
    assert [(entry.rank, entry.top) for entry in without.logprobs] == [(2, ())]
    found = [
        (entry.text, entry.rank, [(top.text, top.logprob) for top in entry.top]) for entry in asked.logprobs
    ]
    assert found == [("c", 3, [("e", -0.5)]), ("d", 4, [("f", -0.25)])]


def test_prompt_scores_gather_until_the_first_event_of_choice_0():
    async def act(world: World) -> object:
        opened = world.open(_scoring("a", prompt_ids=(97, 98, 99, 100), prompt_logprobs=1))
        first = opened.first_sequence_id
        for scores in ((-1.0, -2.0), (-3.0,)):
            told = ((first, some_scores(*scores)),)
            world.requests.hear(
                Updates(sequence_ids=(first,), num_tokens=(0,), finish_reasons=(None,), prompt_scores=told)
            )
        world.hear((first + 1, "x", None), (first, "y", None), logprobs=(-0.5, -0.25))
        early = [await anext(opened.stream), await anext(opened.stream)]
        world.hear((first, "", STOP), (first + 1, "", STOP))
        return early, await rest(opened)

    (other, own), later = in_loop(act)
    first, *others = own.prompt_logprobs
    assert first is None
    assert [(entry.text, entry.logprob) for entry in others] == [("b", -1.0), ("c", -2.0), ("d", -3.0)]
    assert other.prompt_logprobs == ()
    assert all(event.prompt_logprobs == () for event in later)


def test_scoring_alone_is_one_event_with_the_scores_of_the_prompt():
    async def act(world: World) -> object:
        opened = world.open(_scoring("a", prompt_ids=(97,), num_choices=1, prompt_logprobs=0, max_tokens=0))
        world.hear((opened.first_sequence_id, "", LENGTH))
        return await rest(opened)

    (event,) = in_loop(act)
    assert (event.prompt_logprobs, event.token_ids, event.finish_reason) == ((None,), (), LENGTH)


def _scoring(
    request_id: str, *, prompt_ids: tuple[int, ...] = (1,), num_choices: int = 2, **sampling: object
) -> Request:
    params = {"max_tokens": 9, "seed": 0, "logprobs": True, **sampling}
    return Request(
        request_id=request_id,
        prompt_ids=prompt_ids,
        sampling=SamplingParams(**params),
        num_choices=1 if "num_top_logprobs" in sampling else num_choices,
    )


def test_sequence_ids_grow_and_those_of_one_request_are_consecutive_and_its_own():
    async def act(world: World) -> object:
        ranges = []
        for number in range(8):
            logprobs = number % 3 == 0
            opened = world.open(request_id=str(number), num_choices=128, logprobs=logprobs)
            ranges.append(range(opened.first_sequence_id, opened.first_sequence_id + 128))
        return ranges

    ranges = in_loop(act)
    assert all(before[-1] < after[0] for before, after in pairwise(ranges))


def test_acceptance_is_awaited():
    async def act(world: World) -> object:
        opened = world.open()
        waiting = asyncio.ensure_future(opened.wait_accepted())
        await asyncio.sleep(0)
        was_waiting = not waiting.done()
        world.requests.hear(Accepted(request_id="a"))
        return was_waiting, await waiting

    assert in_loop(act) == (True, None)


def test_news_before_acceptance_is_kept():
    async def act(world: World) -> object:
        opened = world.open()
        world.hear((opened.first_sequence_id, "a", STOP))
        world.requests.hear(Accepted(request_id="a"))
        return brief(await rest(opened))

    assert in_loop(act) == [(0, "a", STOP)]


def test_a_refusal_is_raised_to_who_waits_for_acceptance_and_forgets_the_request():
    async def act(world: World) -> object:
        opened = world.open()
        world.requests.hear(Refused(request_id="a", error=RequestError("no", "n")))
        with pytest.raises(RequestError) as caught:
            await opened.wait_accepted()
        await opened.stream.aclose()
        return caught.value, "a" in world.requests, world.sent

    assert in_loop(act) == (RequestError("no", "n"), False, [])


def test_the_end_of_all_is_raised_to_who_waits_for_acceptance():
    async def act(world: World) -> object:
        opened = world.open()
        waiting = asyncio.ensure_future(opened.wait_accepted())
        await asyncio.sleep(0)
        world.requests.end_all(EngineCrashedError("gone"))
        with pytest.raises(EngineCrashedError):
            await waiting

    in_loop(act)


def test_answers_for_unknown_requests_are_dropped():
    async def act(world: World) -> object:
        world.requests.hear(Accepted(request_id="unknown"))
        world.requests.hear(Refused(request_id="unknown", error=RequestError("no")))
        world.hear((4711, "abc", STOP))
        world.hear_failure(4711, StepError("boom"))
        return world.sent

    assert in_loop(act) == []


def test_a_stream_still_open_when_the_engine_has_drained_ends_as_stopping():
    async def act(world: World) -> object:
        opened = world.open()
        world.requests.hear(Drained())
        with pytest.raises(EngineUnavailableError) as caught:
            await anext(opened.stream)
        return caught.value.state

    assert in_loop(act) == "stopping"


def test_idle_is_when_nothing_is_under_way():
    async def act(world: World) -> object:
        await world.requests.wait_idle()
        opened = world.open()
        waiting = asyncio.ensure_future(world.requests.wait_idle())
        await asyncio.sleep(0)
        was_waiting = not waiting.done()
        world.hear((opened.first_sequence_id, "a", STOP))
        await waiting
        return was_waiting

    assert in_loop(act) is True


def test_a_fault_in_one_requests_text_ends_that_request_alone(caplog: pytest.LogCaptureFixture):
    class Faulty:
        num_tokens = 0

        def feed(self, token_ids: object, logprobs: object) -> object:
            raise IndexError("a bug")

    async def act(world: World) -> object:
        faulty = world.requests.open(new_request(request_id="f"), [Faulty()], world.sent.append)
        sound = world.open(request_id="s")
        world.hear((faulty.first_sequence_id, "a", None), (sound.first_sequence_id, "b", STOP))
        with pytest.raises(EngineError, match="could not be turned into text"):
            await anext(faulty.stream)
        return brief(await rest(sound)), world.sent

    assert in_loop(act) == ([(0, "b", STOP)], [Abort(request_id="f")])
    assert "a bug" in caplog.text


@pytest.mark.parametrize(
    ("end", "line"),
    [
        (
            lambda world, first: world.hear((first, "bc", STOP), (first + 1, "", LENGTH)),
            "reason=stop,length output_tokens=4 queue_ms=- first_token_ms=250.0 duration_ms=1250.0",
        ),
        (
            lambda world, first: world.requests.end_all(EngineCrashedError("gone")),
            "reason=EngineCrashedError output_tokens=2 queue_ms=- first_token_ms=250.0 duration_ms=1250.0",
        ),
    ],
    ids=["finished", "crashed"],
)
def test_each_request_leaves_one_line_at_its_end(
    caplog: pytest.LogCaptureFixture, end: Callable[[World, int], object], line: str
):
    async def act(world: World) -> None:
        opened = world.open(num_choices=2)
        world.clock.jump(0.25)
        world.hear((opened.first_sequence_id, "a", None), (opened.first_sequence_id + 1, "x", None))
        world.clock.jump(1.0)
        end(world, opened.first_sequence_id)
        await opened.stream.aclose()

    with caplog.at_level(logging.DEBUG, "engine.open_requests"):
        in_loop(act)

    assert [record.getMessage() for record in caplog.records] == [f"request ended id=a {line}"]


def test_a_request_aborted_before_its_first_token_leaves_a_line_too(caplog: pytest.LogCaptureFixture):
    async def act(world: World) -> None:
        await world.open().stream.aclose()

    with caplog.at_level(logging.DEBUG, "engine.open_requests"):
        in_loop(act)

    (record,) = caplog.records
    assert "reason=abort output_tokens=0 queue_ms=- first_token_ms=- " in record.getMessage()


def test_the_mean_duration_follows_the_requests_that_had_tokens():
    async def act(world: World) -> object:
        durations_s = []
        for number, duration_s in enumerate((2.0, 4.0)):
            opened = world.open(request_id=str(number))
            world.hear((opened.first_sequence_id, "a", None))
            world.clock.jump(duration_s)
            world.hear((opened.first_sequence_id, "", STOP))
            durations_s.append(world.requests.mean_duration_s)
        await world.open().stream.aclose()
        return [*durations_s, world.requests.mean_duration_s]

    assert in_loop(act) == pytest.approx([2.0, 2.4, 2.4])


def test_what_the_cache_knew_comes_with_the_first_event():
    report = PrefixReport(num_matched_tokens=16, block_size=16)

    async def act(world: World) -> object:
        opened = world.open(num_choices=2)
        first = opened.first_sequence_id
        world.requests.hear(Updates(prefix_reports=((first, report), (first + 1, report))))
        world.hear((first + 1, "a", LENGTH), (first, "b", None))
        early = [await anext(opened.stream) for _ in range(2)]
        world.hear((first, "c", LENGTH))
        return [*early, *await rest(opened)]

    assert [(event.text, event.prefix_report) for event in in_loop(act)] == [
        ("a", None),
        ("b", report),
        ("c", None),
    ]


def test_the_wait_in_the_engines_queue_is_kept_for_the_record():
    async def act(world: World) -> object:
        opened = world.open(num_choices=2)
        for choice, waited_s in ((0, 0.5), (1, 3.0)):
            world.requests.hear(Updates(waited_s=((opened.first_sequence_id + choice, waited_s),)))
        await opened.stream.aclose()
        return opened.stream.record, world.requests.tally.to_stats().queue_s

    record, queue_s = in_loop(act)

    assert record.waited_s == 0.5
    assert (queue_s.num_values, queue_s.total) == (1, 0.5)


def test_tokens_that_come_together_share_the_time_since_the_last():
    async def act(world: World) -> object:
        first = world.open().first_sequence_id
        world.clock.jump(2.0)
        world.hear((first, "a", None))
        world.clock.jump(0.75)
        world.hear((first, "bcd", None))
        return world.requests.tally.to_stats()

    stats = in_loop(act)

    assert (stats.first_token_s.total, stats.first_token_s.num_values) == (2.0, 1)
    assert (stats.inter_token_s.total, stats.inter_token_s.num_values) == (0.75, 3)
    assert stats.num_generated_tokens == 4


def test_each_choice_has_its_own_time_between_tokens():
    async def act(world: World) -> object:
        first = world.open(num_choices=2).first_sequence_id
        world.hear((first, "a", None))
        world.clock.jump(1.0)
        world.hear((first + 1, "a", None))
        world.clock.jump(1.0)
        world.hear((first, "b", None))
        return world.requests.tally.to_stats().inter_token_s

    inter_token_s = in_loop(act)

    assert (inter_token_s.total, inter_token_s.num_values) == (2.0, 1)


def test_ages_count_from_the_opening():
    async def act(world: World) -> object:
        world.open(request_id="old")
        world.clock.jump(3.0)
        world.open(request_id="new")
        return world.requests.ages_s

    assert in_loop(act) == {"old": 3.0, "new": 0.0}


def test_a_request_whose_time_is_over_is_ended_in_the_engine_too():
    async def act(world: World) -> object:
        opened = world.open(replace(new_request("hi", request_id="slow"), timeout_s=3.0))
        world.requests.keep_time(opened, world.clock)
        await asyncio.sleep(0)
        world.clock.jump(3.1)
        with pytest.raises(DeadlineError):
            await anext(opened.stream)
        return world.sent

    assert in_loop(act) == [Abort(request_id="slow")]
