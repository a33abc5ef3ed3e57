"""The child processes of the test run, but for those of libraries and of tests that were there before."""

import gc
from collections.abc import Collection

import psutil

# A grammar's trial process lives as long as a compiler of an earlier test file is remembered.
_BYSTANDERS = ("resource_tracker", "multiprocessing", "engine.structured.trial")


def child_pids() -> list[int]:
    """Children of this process, those dead and not reaped included."""
    if found := _found():
        gc.collect()  # what nobody holds any more ends its process
        found = _found()
    return found


def assert_no_more_than(before: Collection[int]) -> None:
    """No child but those that were there `before`, such as what an earlier test file has left to itself."""
    left = [pid for pid in child_pids() if pid not in before]
    assert left == [], [" ".join(psutil.Process(pid).cmdline()) or f"dead {pid}" for pid in left]


def _found() -> list[int]:
    return [child.pid for child in psutil.Process().children() if not _is_bystander(child)]


def _is_bystander(child: psutil.Process) -> bool:
    try:
        words = " ".join(child.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False
    return any(bystander in words for bystander in _BYSTANDERS)
