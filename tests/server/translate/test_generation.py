import json

import pytest

from engine import FinishReason, TokenEvent, TokenLogprob
from server.translate.generation import (
    GatheredChoice,
    Tally,
    TextMould,
    Ticket,
    encode_json,
    sse_event,
)


def plain_usage(answer: dict) -> dict:
    """The counts of an answer without their details."""
    return {name: count for name, count in answer["usage"].items() if not name.endswith("_details")}


def event(
    text: str = "", *, choice: int = 0, logged: tuple[str, ...] = (), start: int = 0, count: int = 1, **fields
) -> TokenEvent:
    logprobs = tuple(TokenLogprob(token_id=1, text=t, token_bytes=t.encode(), logprob=-1.0) for t in logged)
    offsets = tuple(range(start, start + len(logged)))
    told = {"token_ids": (1,), "finish_reason": None, "text_offsets": offsets, **fields}
    return TokenEvent(choice=choice, text=text, logprobs=logprobs, num_output_tokens=count, **told)


def test_usage_counts_each_prompt_once_and_each_choice():
    tally = Tally([[1, 2, 3], [4]])
    for index, count in [(0, 1), (0, 2), (1, 5)]:
        tally.count(index, event(count=count))
    usage = tally.usage()

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 7, 11)


def test_a_gathered_choice_is_the_sum_of_its_events():
    choice = GatheredChoice()
    choice.add(event("ab", logged=("a", "b")))
    choice.add(event("c", logged=("c",), start=2, finish_reason=FinishReason.STOP))

    assert (choice.text, choice.text_offsets, choice.token_ids) == ("abc", [0, 1, 2], [1, 1])
    assert choice.finish_reason is FinishReason.STOP


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\u2028", "\x85", '"', "🙂", "日本"])
def test_an_event_is_one_line_whatever_it_says(text):
    written = sse_event(encode_json(text))

    assert written.decode().splitlines() == [written.decode().strip(), ""]
    assert json.loads(written.removeprefix(b"data: ")) == text


@pytest.mark.parametrize("text", ["a", 'q"\\\n', "\u2028\x00\x85", "é🙂"])
def test_a_mould_makes_the_same_bytes_as_the_encoder(text):
    mould = TextMould('{"index":', ',"text":', ',"end":null}')

    assert mould.event(3, text) == sse_event(encode_json({"index": 3, "text": text, "end": None}))


def test_a_ticket_opens_every_answer():
    ticket = Ticket(answer_id="a-1", created_s=5.9, model_id="m", fingerprint="fp", seed=0)

    assert ticket.head("k") == {
        "id": "a-1",
        "object": "k",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp",
    }
