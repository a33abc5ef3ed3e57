"""The child processes of the test run, but for those of libraries that were there before."""

import psutil

_BYSTANDERS = ("resource_tracker", "multiprocessing")


def child_pids() -> list[int]:
    """Children of this process, those dead and not reaped included."""
    return [child.pid for child in psutil.Process().children() if not _is_bystander(child)]


def _is_bystander(child: psutil.Process) -> bool:
    try:
        words = " ".join(child.cmdline())
    except (psutil.ZombieProcess, psutil.NoSuchProcess):
        return False
    return any(bystander in words for bystander in _BYSTANDERS)
