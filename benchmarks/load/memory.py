"""Memory of a process and all below it: proportional set size, so that shared pages count once.

Read from Linux' /proc. RSS would count a library that two processes share twice, and weights that one
has mapped and another inherited.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROC = Path("/proc")
INTERVAL_S = 0.5  # a look costs milliseconds of this process and of the watched


def process_tree(pid: int) -> list[int]:
    """`pid` and all its descendants that live; empty if it does not."""
    found, waiting = [], [pid]
    while waiting:
        parent = waiting.pop()
        try:
            for task in (PROC / str(parent) / "task").iterdir():
                waiting += [int(child) for child in (task / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found.append(parent)
    return found


def pss_bytes(pid: int) -> int:
    """The proportional set size of one process; 0 if it has ended."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) * 1024 for line in text.splitlines() if line.startswith("Pss:")), 0)


def tree_pss_bytes(pid: int) -> int:
    """The proportional set sizes of a process and all its descendants together."""
    return sum(pss_bytes(member) for member in process_tree(pid))


class MemoryWatch:
    """Looks at a process tree's memory at intervals, from a thread of its own, and keeps the largest."""

    def __init__(self, pid: int) -> None:
        self.peak_bytes = 0
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    @classmethod
    @contextmanager
    def over(cls, pid: int | None) -> Iterator["MemoryWatch | None"]:
        """Watch while the block runs, its first and last moment included; None if there is no `pid`."""
        if pid is None:
            yield None
            return
        watch = cls(pid)
        watch._thread.start()
        try:
            yield watch
        finally:
            watch._is_over.set()
            watch._thread.join()

    def _watch(self) -> None:
        is_over = False
        while not is_over:
            is_over = self._is_over.wait(INTERVAL_S if self.peak_bytes else 0)
            self.peak_bytes = max(self.peak_bytes, tree_pss_bytes(self._pid))
