import io

import httpx
import pytest

from server.selftest.run import run_drills
from server.selftest.target import FailedError, SkippedError, Target
from tests.support.scripted_server import ScriptedServer


def passing(target: Target) -> str:
    return "seen"


def raising(error: Exception):
    def drill(target: Target) -> str:
        raise error

    return drill


def run(**drills) -> tuple[bool, list[str]]:
    output = io.StringIO()
    is_sound = run_drills(ScriptedServer().target(), drills, output)
    return is_sound, output.getvalue().splitlines()


def test_each_drill_is_a_line_with_its_outcome_and_reason():
    is_sound, lines = run(first=passing, second=raising(SkippedError("no key")))

    assert is_sound
    assert lines == ["pass  first       seen", "skip  second      no key", "1 passed, 0 failed, 1 skipped"]


@pytest.mark.parametrize(
    "error",
    [FailedError("wrong"), httpx.ReadTimeout("wrong"), ProcessLookupError("wrong"), KeyError("wrong")],
    ids=lambda error: type(error).__name__,
)
def test_one_failure_fails_the_whole_and_the_others_are_tried(error):
    is_sound, lines = run(first=passing, second=raising(error), third=passing)

    assert not is_sound
    assert lines[1].startswith("FAIL  second")
    assert "wrong" in lines[1]
    assert lines[-1] == "2 passed, 1 failed, 0 skipped"


def test_without_a_server_nothing_else_is_tried():
    is_sound, lines = run(first=raising(httpx.ConnectError("refused")), second=passing)

    assert not is_sound
    assert len(lines) == 1
