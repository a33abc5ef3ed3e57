from dataclasses import replace

import pytest

from engine.request import SamplingParams
from engine.request_record import RequestRecord, RequestTally
from tests.support.new_request import new_request


def a_record(**changes: object) -> RequestRecord:
    facts = {
        "request": new_request("hello"),
        "reason": "stop",
        "num_cached_tokens": 4,
        "num_output_tokens": 9,
        "opened_s": 100.0,
        "waited_s": 0.25,
        "first_token_s": 101.0,
        "ended_s": 103.5,
    }
    return RequestRecord(**{**facts, **changes})


@pytest.mark.parametrize(
    ("reason", "outcome"),
    [
        ("stop", "stop"),
        ("stop,stop", "stop"),
        ("stop,length", "mixed"),
        ("abort", "abort"),
        ("StepError", "StepError"),
    ],
)
def test_the_outcome_is_one_word_of_few(reason: str, outcome: str):
    assert a_record(reason=reason).outcome == outcome


def test_times_count_from_the_opening():
    record = a_record()

    assert (record.to_first_token_s, record.duration_s) == (1.0, 3.5)


def test_what_never_had_a_token_has_no_time_to_it():
    assert a_record(first_token_s=None).to_first_token_s is None


def test_ended_requests_are_counted_by_outcome_and_timed():
    tally = RequestTally()
    for reason in ("stop", "stop", "abort"):
        tally.ended(a_record(reason=reason))
    stats = tally.to_stats()

    assert stats.num_by_outcome == {"stop": 2, "abort": 1}
    assert stats.duration_s.total == 3 * 3.5


def test_a_prompt_counts_when_its_first_token_comes():
    tally = RequestTally()
    tally.first_token(0.5, 100, 64)
    tally.ended(a_record())
    stats = tally.to_stats()

    assert (stats.num_prompt_tokens, stats.num_cached_tokens) == (100, 64)
    assert stats.first_token_s.total == 0.5


@pytest.mark.parametrize(("reason", "num_tokens"), [("length", 5), ("abort", 0), ("StepError", 0)])
def test_a_prompt_that_was_only_scored_counts_at_its_end(reason: str, num_tokens: int):
    sampling = SamplingParams(max_tokens=0, seed=0, prompt_logprobs=1)
    request = replace(new_request("hello"), sampling=sampling)
    tally = RequestTally()
    tally.ended(a_record(request=request, reason=reason))

    assert tally.to_stats().num_prompt_tokens == num_tokens
