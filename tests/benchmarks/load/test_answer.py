"""An answer's tokens are those of its usage, its times those of chunks with text, its failures outcomes."""

import asyncio

import pytest

from benchmarks.load.answer import Target, ask, count_prompt_tokens, first_model
from benchmarks.load.connection import Host
from benchmarks.load.prompts import PromptForm
from benchmarks.load.workload import Order
from tests.support.event_server import Answer, EventServer, events, streamed, whole

USAGE = {"prompt_tokens": 3, "completion_tokens": 5}
ORDER = Order(prompt=(0, 1, 2), output_tokens=5, due_s=None)


def outcome_of(answerer, **changes):
    """What comes of one request to a server that answers so, and that server."""
    server = EventServer(answerer)

    async def run():
        async with server.listening() as url:
            host = Host(url)
            try:
                return await ask(Target(host=host, model="tiny", **changes), ORDER)
            finally:
                await host.close()

    return asyncio.run(run()), server


@pytest.mark.parametrize("end", ["\n\n", "\r\n\r\n"], ids=["LF", "CR LF"])
def test_tokens_are_counted_by_usage_not_by_chunks(end):
    outcome, _ = outcome_of(lambda body: Answer(events(["a", "bcd"], USAGE, end=end)))

    assert outcome.status == "ok"
    assert (outcome.input_tokens, outcome.output_tokens) == (3, 5)
    assert len(outcome.text_times_s) == 2


def test_chunks_without_text_have_no_time():
    outcome, _ = outcome_of(lambda body: Answer(events(["", "a", ""], USAGE)))

    assert len(outcome.text_times_s) == 1


def test_an_event_may_come_in_pieces():
    text = b"".join(events(["a", "b"], USAGE))
    outcome, _ = outcome_of(lambda body: Answer([text[:7], text[7:50], text[50:]]))

    assert (outcome.status, outcome.output_tokens, len(outcome.text_times_s)) == ("ok", 5, 2)


def test_times_follow_each_other():
    outcome, _ = outcome_of(streamed)

    times_s = [outcome.due_s, outcome.sent_s, *outcome.text_times_s, outcome.ended_s]
    assert times_s == sorted(times_s)


def test_an_answer_without_usage_is_an_error():
    outcome, _ = outcome_of(lambda body: Answer(events(["a"], None)))

    assert outcome.status == "no usage"


def test_a_refusal_is_told_by_its_status_and_words():
    outcome, _ = outcome_of(lambda body: Answer([b"too many"], 503))

    assert (outcome.status, outcome.message) == ("503", "too many")


def test_an_error_in_the_stream_is_an_error():
    outcome, _ = outcome_of(
        lambda body: Answer([b'data: {"error": {"message": "gone"}}\n\n', b"data: [DONE]\n\n"])
    )

    assert outcome.status == "error event"
    assert "gone" in outcome.message


def test_a_stream_that_is_cut_off_is_broken():
    outcome, _ = outcome_of(lambda body: Answer(events(["a", "b"], USAGE), is_cut=True))

    assert outcome.status == "broken"


def test_nobody_listening_is_an_outcome():
    target = Target(host=Host("http://127.0.0.1:9"), model="tiny")

    assert asyncio.run(ask(target, ORDER)).status == "connection"


def test_a_late_answer_is_a_timeout():
    class Silent(EventServer):
        async def _send(self, answer, writer):
            await writer.wait_closed()

    server = Silent(whole)

    async def run():
        async with server.listening() as url:
            return await ask(Target(host=Host(url), model="tiny", timeout_s=0.05), ORDER)

    assert asyncio.run(run()).status == "timeout"


def test_the_body_carries_what_was_ordered():
    _, server = outcome_of(streamed, body={"ignore_eos": True})

    assert server.paths == ["/v1/completions"]
    assert server.bodies == [
        {
            "model": "tiny",
            "prompt": [1_000, 1_001, 1_002],
            "max_tokens": 5,
            "temperature": 0,
            "ignore_eos": True,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
    ]


def test_a_chat_sends_text_as_a_message():
    form = PromptForm(words=("a", "b", "c"))
    outcome, server = outcome_of(
        lambda body: Answer(
            [
                b'data: {"choices": [{"delta": {"role": "assistant", "content": ""}}]}\n\n',
                b'data: {"choices": [{"delta": {"content": "x"}}], "usage": null}\n\n',
                b'data: {"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 5}}\n\n',
            ]
        ),
        endpoint="chat",
        form=form,
    )

    assert server.paths == ["/v1/chat/completions"]
    assert server.bodies[0]["messages"] == [{"role": "user", "content": "a b c"}]
    assert (outcome.status, len(outcome.text_times_s)) == ("ok", 1)


def test_a_whole_answer_has_tokens_but_no_times_of_text():
    outcome, _ = outcome_of(whole, is_streamed=False)

    assert (outcome.status, outcome.output_tokens, outcome.text_times_s) == ("ok", 5, [])


def test_the_server_is_asked_for_its_model_and_its_count():
    server = EventServer(whole)

    async def run():
        async with server.listening() as url:
            host = Host(url)
            try:
                model = await first_model(host)
                return model, await count_prompt_tokens(Target(host=host, model=model), "one two")
            finally:
                await host.close()

    assert asyncio.run(run()) == ("tiny", 3)
    assert server.bodies[0]["max_tokens"] == 1
    assert "stream_options" not in server.bodies[0]
