"""Who may begin beside those that run: `OptimisticAdmission` and `GuaranteedAdmission`.

The worst case of a sequence is known before it begins: however it goes on, it holds at most
min(ceil(max_total_tokens / B), M) blocks in each cache group.
"""

from collections.abc import Iterable
from typing import Protocol

from engine.cache.pool import CachePool
from engine.scheduling.sequence import Sequence


class Admission(Protocol):
    """Decides whether a sequence that has not begun may, as far as blocks go."""

    def takes(self, sequence: Sequence) -> bool:
        """Whether it may begin; what is set aside for it then stays so until it is let go."""
        ...

    def lets_go(self, sequence: Sequence) -> None:
        """It holds no blocks and will hold none; may be repeated."""
        ...

    def headroom(self, running: Iterable[Sequence]) -> int:
        """Blocks that admission leaves free for those that run."""
        ...


class OptimisticAdmission:
    """On present need: more run, and sometimes one is preempted and computed again.

    The worst case is the watermark: a table that is still below it may soon need a block, and so
    one is left free for each of these, so that admission does not at once lead to preemption.
    """

    def takes(self, sequence: Sequence) -> bool:  # noqa: ARG002  the protocol's
        """Always."""
        return True

    def lets_go(self, sequence: Sequence) -> None:
        """Nothing was set aside."""

    def headroom(self, running: Iterable[Sequence]) -> int:
        """A block for each table below its worst case."""
        return sum(
            table.num_held < most
            for sequence in running
            for table, most in zip(sequence.tables, sequence.worst_blocks, strict=True)
        )


class GuaranteedAdmission:
    """On the worst case: the sum of all that have begun fits into the pool, so nobody is ever preempted."""

    def __init__(self, pool: CachePool) -> None:
        self._num_blocks = pool.layout.num_blocks
        self._set_aside: dict[int, int] = {}
        self._num_set_aside = 0

    def takes(self, sequence: Sequence) -> bool:
        """Set its worst case aside, unless that was done or does not fit."""
        if sequence.sequence_id in self._set_aside:
            return True
        num_blocks = sum(sequence.worst_blocks)
        if self._num_set_aside + num_blocks > self._num_blocks:
            return False
        self._set_aside[sequence.sequence_id] = num_blocks
        self._num_set_aside += num_blocks
        return True

    def lets_go(self, sequence: Sequence) -> None:
        """Leave its worst case to others."""
        self._num_set_aside -= self._set_aside.pop(sequence.sequence_id, 0)

    def headroom(self, running: Iterable[Sequence]) -> int:  # noqa: ARG002  the protocol's
        """None: all that they can need is set aside."""
        return 0


def new_admission(policy: str, pool: CachePool) -> Admission:
    """The policy of that name, one of `engine.config.ADMISSIONS`."""
    return GuaranteedAdmission(pool) if policy == "guaranteed" else OptimisticAdmission()
