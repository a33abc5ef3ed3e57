"""Which block holds which tokens: hash chains of sequences, and the index of blocks by hash.

A block's hash stands for its own tokens and all before it, so equal hashes mean equal content of
the cache. Who owns a block, and when it is evicted, is the pool's business.
"""

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from hashlib import blake2b
from struct import Struct

HASH_BYTES = 16


class HashChain:
    """The hashes of a sequence's full blocks, computed as its tokens become known.

    `salt` separates callers who must not see what others have cached: chains with different salts
    have no hash in common.
    """

    __slots__ = ("_block_size", "_root", "hashes")

    def __init__(self, block_size: int, salt: str = "") -> None:
        self._block_size = block_size
        self._root = blake2b(salt.encode(), digest_size=HASH_BYTES).digest()
        self.hashes: list[bytes] = []

    def extend(self, token_ids: Sequence[int]) -> None:
        """Hash the full blocks of `token_ids`, the whole sequence so far, that are not hashed yet."""
        size, pack = self._block_size, Struct(f"<{self._block_size}I").pack
        for number in range(len(self.hashes), len(token_ids) // size):
            parent = self.hashes[-1] if self.hashes else self._root
            tokens = token_ids[number * size : (number + 1) * size]
            self.hashes.append(blake2b(parent + pack(*tokens), digest_size=HASH_BYTES).digest())


class PrefixIndex:
    """Finds the block of a cache group that holds the content of a hash.

    It also remembers up to `max_seen` hashes whose blocks may be gone, and when they went: where a
    new sequence leaves what was seen before is a junction, after which others will leave too.
    """

    def __init__(self, max_seen: int, now: Callable[[], float] = time.monotonic) -> None:
        self._block_of: dict[tuple[int, bytes], int] = {}
        self._key_of: dict[int, tuple[int, bytes]] = {}
        self._seen: OrderedDict[bytes, float | None] = OrderedDict()  # when last evicted; None: never
        self._max_seen = max_seen
        self._now = now

    def __contains__(self, block_id: int) -> bool:
        return block_id in self._key_of

    def __len__(self) -> int:
        return len(self._key_of)

    def find(self, group: int, block_hash: bytes) -> int | None:
        """The block with that content in that group, or None."""
        return self._block_of.get((group, block_hash))

    def put(self, group: int, block_hash: bytes, block_id: int) -> None:
        """Say what a computed block holds. Of two blocks with equal content the first stays known."""
        self._seen.setdefault(block_hash)
        self._seen.move_to_end(block_hash)
        if len(self._seen) > self._max_seen:
            self._seen.popitem(last=False)
        key = (group, block_hash)
        if key not in self._block_of and block_id not in self._key_of:
            self._block_of[key] = block_id
            self._key_of[block_id] = key

    def forget(self, block_id: int) -> None:
        """The block is about to hold something else."""
        key = self._key_of.pop(block_id, None)
        if key is not None:
            del self._block_of[key]
            if key[1] in self._seen:
                self._seen[key[1]] = self._now()

    def evicted_s_ago(self, block_hash: bytes) -> float | None:
        """How long ago a block with that content was last taken for something else; None: not known."""
        evicted_s = self._seen.get(block_hash)
        return None if evicted_s is None else self._now() - evicted_s

    def num_seen(self, hashes: Sequence[bytes]) -> int:
        """How many leading blocks were ever computed, as far as remembered."""
        return next((n for n, block_hash in enumerate(hashes) if block_hash not in self._seen), len(hashes))

    def longest_hit(
        self, hashes: Sequence[bytes], max_blocks: int, windows: Sequence[tuple[int | None, int]]
    ) -> int:
        """The most leading blocks, up to `max_blocks`, after which a sequence could go on.

        `windows` has (window, block size) per group. A hit of k blocks needs, in each group, only
        those that a query behind it still sees: with window 8 and blocks of 4, the query at 12
        sees 5..12, so a hit of 3 blocks needs blocks 1 and 2.
        """
        num_blocks = min(max_blocks, len(hashes))
        groups = list(enumerate(windows))
        for group, (window, _) in groups:
            if window is None:
                num_blocks = self._num_leading(group, hashes, num_blocks)
        windowed = [(group, window, size) for group, (window, size) in groups if window is not None]
        missing: int | None = 0
        while num_blocks and missing is not None:
            missing = None
            for group, window, size in windowed:
                first = _first_seen(num_blocks, window, size)
                missing = self._newest_missing(group, hashes, first, num_blocks)
                if missing is not None:
                    # It is in sight of every hit between it and the one just tried, and so is, of
                    # each hit, the block that it ends with.
                    num_blocks = self._num_up_to_present(group, hashes, missing)
                    break
        return num_blocks

    def _num_leading(self, group: int, hashes: Sequence[bytes], limit: int) -> int:
        """How many blocks are present before the first that is not; what lies behind it is not looked at."""
        return next((n for n in range(limit) if (group, hashes[n]) not in self._block_of), limit)

    def _num_up_to_present(self, group: int, hashes: Sequence[bytes], limit: int) -> int:
        """How many blocks there are up to the last of the first `limit` that is present; 0 if none is."""
        return next((n for n in range(limit, 0, -1) if (group, hashes[n - 1]) in self._block_of), 0)

    def _newest_missing(self, group: int, hashes: Sequence[bytes], first: int, stop: int) -> int | None:
        """The last of the blocks [first, stop) that is not present."""
        return next(
            (n for n in range(stop - 1, first - 1, -1) if (group, hashes[n]) not in self._block_of), None
        )


def _first_seen(num_blocks: int, window: int, block_size: int) -> int:
    """The oldest block that the query behind `num_blocks` blocks sees."""
    return max(0, num_blocks * block_size - window + 1) // block_size
