import pytest

from server.selftest.target import FailedError
from tests.support.scripted_server import ScriptedServer


def test_the_model_and_its_context_are_found_out():
    target = ScriptedServer().target()
    target.model, target.max_context = "", 0

    assert target.learn() == "m, 1000 tokens at most"


def test_a_server_that_is_not_ready_fails():
    with pytest.raises(FailedError, match="/ready is not 200"):
        ScriptedServer(ready=503).target().learn()


def test_a_stream_is_heard_to_its_end():
    heard = ScriptedServer().target().hear("hello", max_tokens=3)

    assert (heard.text, heard.num_pieces, heard.usage["completion_tokens"]) == ("t0t1t2", 3, 3)


def test_a_stream_tells_its_number():
    with ScriptedServer().target().asking("hello") as (number, events):
        assert (number, len(list(events))) == ("77", 18)
