"""`Claims`: which blocks of content are being computed right now, so that nobody computes them twice.

A running sequence claims the hashes of its full blocks that are not computed yet. A waiting one
whose next block is claimed waits for it, and then finds it in the cache.
"""

from collections import Counter, deque
from collections.abc import Iterable


class Claims:
    """Hashes under computation, by the sequence that computes them."""

    def __init__(self) -> None:
        self._counts: Counter[bytes] = Counter()
        self._pending: dict[int, deque[bytes]] = {}

    def __contains__(self, block_hash: bytes | None) -> bool:
        return block_hash in self._counts

    def claim(self, sequence_id: int, hashes: Iterable[bytes]) -> None:
        """The sequence is going to compute the blocks of `hashes`, in this order."""
        pending = deque(hashes)
        self._pending[sequence_id] = pending
        self._counts.update(pending)

    def settle(self, sequence_id: int, num_blocks: int) -> None:
        """It has computed the next `num_blocks` blocks; those it never claimed are passed over."""
        pending = self._pending.get(sequence_id)
        while pending and num_blocks:
            self._drop(pending.popleft())
            num_blocks -= 1

    def withdraw(self, sequence_id: int) -> None:
        """It will not compute the rest; may be repeated."""
        for block_hash in self._pending.pop(sequence_id, ()):
            self._drop(block_hash)

    def _drop(self, block_hash: bytes) -> None:
        self._counts[block_hash] -= 1
        if not self._counts[block_hash]:
            del self._counts[block_hash]
