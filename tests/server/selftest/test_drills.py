import itertools
import json
import os

import pytest

from server.selftest import drills
from server.selftest.target import FailedError, SkippedError
from tests.support.scripted_server import ScriptedServer

ERROR = [json.dumps({"error": {"message": "the step failed"}})]
SOUND = {
    "streaming": drills.streaming,
    "seeds": drills.seeds,
    "prefix hit": drills.prefix_hit,
    "disconnect": drills.disconnect,
    "bound": drills.bound,
}


@pytest.mark.parametrize("name", SOUND)
def test_a_server_that_keeps_its_promise_passes(name):
    assert SOUND[name](ScriptedServer().target())


@pytest.mark.parametrize(
    ("drill", "spoiled", "reason"),
    [
        (drills.streaming, {"pieces": lambda body: ["all at once"]}, "came in 1 pieces"),
        (drills.streaming, {"ending": []}, "did not end with"),
        (drills.streaming, {"ending": ERROR}, "the step failed"),
        (drills.seeds, {"pieces": lambda body, n=itertools.count(): [str(next(n))]}, "different texts"),
        (drills.prefix_hit, {"cached": False}, "asked twice"),
        (drills.disconnect, {"num_live": lambda: 0}, "0 sequences were live"),
        (drills.bound, {"entries": 5}, "4 entries holds 5 blocks"),
        (drills.bound, {"ending": ERROR}, "the step failed"),
        (drills.disconnect, {"is_silent": True}, "without an event"),
        (drills.bound, {"num_blocks": 9}, "held 9 blocks; the bound is 4"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_server_that_does_not_fails_with_the_reason(drill, spoiled, reason):
    with pytest.raises(FailedError, match=reason):
        drill(ScriptedServer(**spoiled).target())


@pytest.mark.parametrize(("num_dropped", "told"), [(0, "no ring turned yet"), (2, "; its ring turned")])
def test_the_bound_says_whether_it_was_tried_past_a_window(num_dropped, told):
    assert told in drills.bound(ScriptedServer(num_dropped=num_dropped).target())


def test_a_running_stream_that_fails_while_draining_is_a_failure(monkeypatch):
    monkeypatch.setattr(os, "kill", lambda pid, number: None)

    with pytest.raises(FailedError, match="the step failed"):
        drills.drain(ScriptedServer(num_places=0, ending=ERROR).target(), 4711)


def test_a_server_with_few_places_is_tried_with_those_it_has():
    assert drills.seeds(ScriptedServer(num_streams=4).target()) == "4 answers with seed 7 are the same text"


def test_a_request_that_outlives_its_client_is_found(monkeypatch):
    monkeypatch.setattr(drills, "SETTLE_S", 0.1)
    live = itertools.chain([0], itertools.repeat(1)).__next__

    with pytest.raises(FailedError, match="1 sequences still live after"):
        drills.disconnect(ScriptedServer(num_live=live).target())


@pytest.mark.parametrize(
    ("drill", "spoiled", "reason"),
    [
        (drills.prefix_hit, {"cached": False, "queried": 0}, "the prefix cache is off"),
        (drills.bound, {"stats_status": 403}, "scope admin"),
        (drills.seeds, {"num_streams": 1}, "no place for even one"),
    ],
)
def test_what_cannot_be_tried_is_skipped_with_the_reason(drill, spoiled, reason):
    with pytest.raises(SkippedError, match=reason):
        drill(ScriptedServer(**spoiled).target())


def test_of_too_many_requests_some_are_told_to_come_back():
    told = drills.overload(ScriptedServer(num_live=lambda: 0).target(), 8)

    assert told.startswith("8 at once: 5 × 200, 3 × 503;")


@pytest.mark.parametrize(
    ("refusal", "reason"),
    [((503, {}), "503 without Retry-After"), ((500, {}), "status 500")],
    ids=["no hint", "a fault"],
)
def test_a_refusal_of_another_kind_fails(refusal, reason):
    with pytest.raises(FailedError, match=reason):
        drills.overload(ScriptedServer(num_live=lambda: 0, refusal=refusal).target(), 8)


def test_without_a_process_id_nothing_is_drained():
    with pytest.raises(SkippedError, match="--drain-pid"):
        drills.drain(ScriptedServer().target(), None)


@pytest.mark.parametrize(("num_places", "is_sound"), [(2, True), (10**6, False)], ids=["refuses", "goes on"])
def test_a_server_that_drains_takes_nothing_new(monkeypatch, num_places, is_sound):
    told = []
    monkeypatch.setattr(os, "kill", lambda pid, number: told.append((pid, number)))
    monkeypatch.setattr(drills, "SETTLE_S", 0.2)
    target = ScriptedServer(num_places=num_places).target()

    if is_sound:
        assert "got 503" in drills.drain(target, 4711)
    else:
        with pytest.raises(FailedError, match="still taken"):
            drills.drain(target, 4711)
    assert [pid for pid, _ in told] == [4711]


def test_the_drill_that_ends_the_server_is_the_last():
    assert [*drills.drills(4, None)][-1] == "drain"
