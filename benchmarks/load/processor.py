"""Whose processor time a measurement had: the server's, the client's, and what strangers took of it.

A figure taken while somebody else used the cores is not the server's. Read from Linux' /proc.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.memory import PROC, process_tree

TICK_S = 1 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessorTime:
    """Seconds of processor time up to a moment: of everybody, and of this process and a server's tree.

    `stolen_s` went to other guests of the same host.
    """

    everybody_s: float
    ours_s: float
    stolen_s: float

    @classmethod
    def now(cls, pid: int) -> "ProcessorTime":
        """As of now, where `pid` is the server's."""
        line = (PROC / "stat").read_text().splitlines()[0].split()[1:]
        user, nice, system, _, _, irq, softirq, steal = (int(ticks) * TICK_S for ticks in line[:8])
        members = {os.getpid(), *process_tree(pid)}
        return cls(
            everybody_s=user + nice + system + irq + softirq,
            ours_s=sum(_process_s(PROC / str(member) / "stat") for member in members),
            stolen_s=steal,
        )

    def strangers_s(self, earlier: "ProcessorTime") -> float:
        """What others took since `earlier`, theft included; never below 0, though ticks are coarse."""
        everybody_s = self.everybody_s - earlier.everybody_s + self.stolen_s - earlier.stolen_s
        return max(0.0, everybody_s - (self.ours_s - earlier.ours_s))


def _process_s(path: Path) -> float:
    """User and system time of a process and of its children that have ended; 0 if it is gone itself."""
    try:
        fields = path.read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return 0.0
    return sum(int(ticks) for ticks in fields[11:15]) * TICK_S
