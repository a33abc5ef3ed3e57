import logging

import pytest

from server.observation import Answered, log_line
from tests.support.fake_engine import a_record
from tests.support.new_request import new_request


def answered(**changes: object) -> Answered:
    facts = {
        "request_id": "req_1",
        "number": "1",
        "method": "POST",
        "path": "/v1/completions",
        "route": "/v1/completions",
        "status": 200,
        "started_s": 10.0,
        "ended_s": 15.0,
        "records": (a_record(new_request("hello")),),
    }
    return Answered(**{**facts, **changes})


def line_of(caplog: pytest.LogCaptureFixture, **changes: object) -> str:
    caplog.set_level(logging.DEBUG, "server.observation")
    log_line(answered(**changes), is_quiet=False)
    (record,) = caplog.records
    return record.getMessage()


def test_a_generation_tells_its_tokens_and_times(caplog):
    assert line_of(caplog) == (
        "request finished id=req_1 number=1 method=POST route=/v1/completions status=200 reason=stop "
        "prompt_tokens=5 cached_tokens=2 output_tokens=7 queue_ms=1000.0 first_token_ms=2000.0 "
        "duration_ms=5000.0"
    )


def test_several_prompts_are_summed_and_the_longest_wait_and_first_token_told(caplog):
    records = (
        a_record(new_request("hello")),
        a_record(new_request("you"), waited_s=3.0, first_token_s=11.0, reason="length"),
    )
    line = line_of(caplog, records=records)

    assert "reason=stop+length prompt_tokens=8 cached_tokens=4 output_tokens=14 " in line
    assert "queue_ms=3000.0 first_token_ms=1000.0 " in line


def test_what_never_came_is_a_dash(caplog):
    record = a_record(new_request("hello"), waited_s=None, first_token_s=None, reason="abort")

    assert "reason=abort" in (line := line_of(caplog, records=(record,)))
    assert "queue_ms=- first_token_ms=- " in line


def test_what_the_engine_never_saw_tells_its_path(caplog):
    line = line_of(caplog, records=(), status=404, route=None, path="/nope")

    assert line == (
        "request answered id=req_1 number=1 method=POST path='/nope' status=404 duration_ms=5000.0"
    )


@pytest.mark.parametrize(("is_quiet", "level"), [(True, logging.DEBUG), (False, logging.INFO)])
def test_a_quiet_line_is_for_those_who_look(caplog, is_quiet, level):
    caplog.set_level(logging.DEBUG, "server.observation")
    log_line(answered(), is_quiet=is_quiet)

    assert [record.levelno for record in caplog.records] == [level]


@pytest.mark.parametrize(
    ("method", "route", "labels"),
    [
        ("GET", "/v1/models/{model_id}", ("GET", "/v1/models/{model_id}")),
        ("GETT", None, ("other", "other")),
    ],
)
def test_labels_are_few_whatever_is_sent(method, route, labels):
    observed = answered(method=method, route=route)

    assert (observed.method_label, observed.route_label) == labels
