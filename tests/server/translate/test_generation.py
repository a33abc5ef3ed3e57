import json
import math

import pytest

from engine import FinishReason, TokenEvent, TokenLogprob
from server.schemas.common import GenerationBody
from server.translate.generation import (
    GatheredChoice,
    Tally,
    Ticket,
    bounded_logprob,
    encode_json,
    sse_event,
    text_offsets,
    to_sampling,
)


def sampling(**fields: object):
    body = GenerationBody.model_validate({"model": "m", **fields})
    return to_sampling(body, max_tokens=7, has_logprobs=False, seed=5)


def event(
    text: str = "", *, choice: int = 0, logged: tuple[str, ...] = (), count: int = 1, **fields
) -> TokenEvent:
    logprobs = tuple(TokenLogprob(token_id=1, text=t, token_bytes=t.encode(), logprob=-1.0) for t in logged)
    told = {"token_ids": (1,), "finish_reason": None, **fields}
    return TokenEvent(choice=choice, text=text, logprobs=logprobs, num_output_tokens=count, **told)


def test_what_the_body_leaves_open_has_openais_defaults():
    params = sampling()

    assert (params.temperature, params.top_p, params.top_k, params.stop) == (1.0, 1.0, 0, ())
    assert (params.max_tokens, params.seed, params.ignore_eos) == (7, 5, False)


def test_what_the_body_says_is_taken():
    params = sampling(temperature=0, top_p=0.5, top_k=3, stop="x", seed=9, ignore_eos=True)

    assert (params.temperature, params.top_p, params.top_k, params.stop) == (0.0, 0.5, 3, ("x",))
    assert (params.seed, params.ignore_eos) == (9, True)


def test_a_seed_of_zero_is_a_seed():
    assert sampling(seed=0).seed == 0


def test_a_negative_seed_has_its_own_place():
    assert sampling(seed=-1).seed == 2**64 - 1


def test_top_k_of_minus_one_is_off():
    assert sampling(top_k=-1).top_k == 0


def test_top_p_of_zero_keeps_the_most_probable_token():
    assert 0 < sampling(top_p=0).top_p < 1e-6


def test_several_stop_strings_keep_their_order():
    assert sampling(stop=["b", "a"]).stop == ("b", "a")


def test_usage_counts_each_prompt_once_and_each_choice():
    tally = Tally([[1, 2, 3], [4]])
    for index, count in [(0, 1), (0, 2), (1, 5)]:
        tally.count(index, event(count=count))
    usage = tally.usage()

    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 7, 11)


def test_offsets_count_characters():
    assert text_offsets(event("añb", logged=("a", "ñ", "b")), 10) == [10, 11, 12]


def test_offsets_stay_within_the_events_text():
    assert text_offsets(event("🙂", logged=("\ufffd", "\ufffd", "\ufffd")), 0) == [0, 1, 1]


def test_a_gathered_choice_is_the_sum_of_its_events():
    choice = GatheredChoice()
    choice.add(event("ab", logged=("a", "b")))
    choice.add(event("c", logged=("c",), finish_reason=FinishReason.STOP))

    assert (choice.text, choice.text_offsets, choice.token_ids) == ("abc", [0, 1, 2], [1, 1])
    assert choice.finish_reason is FinishReason.STOP


def test_no_probability_is_a_number_on_the_wire():
    assert bounded_logprob(-math.inf) == -9999.0
    assert bounded_logprob(-1.5) == -1.5


@pytest.mark.parametrize("text", ["a\nb", "a\r\nb", "\u2028", "\x85", '"', "🙂", "日本"])
def test_an_event_is_one_line_whatever_it_says(text):
    written = sse_event(encode_json(text))

    assert written.decode().splitlines() == [written.decode().strip(), ""]
    assert json.loads(written.removeprefix(b"data: ")) == text


def test_a_ticket_opens_every_answer():
    ticket = Ticket(answer_id="a-1", created_s=5.9, model_id="m", fingerprint="fp", seed=0)

    assert ticket.head("k") == {
        "id": "a-1",
        "object": "k",
        "created": 5,
        "model": "m",
        "system_fingerprint": "fp",
    }
