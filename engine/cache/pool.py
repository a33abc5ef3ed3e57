"""Who owns which block: `BlockAllocator` counts owners, `CachePool` fills and empties tables.

Bookkeeping only, in integers: the tensors are the `CacheStore`, and when a block may be taken or
must be given back is the scheduler's business. A block that falls out of a window is *replaced*,
never overwritten: the table gives up its share of it and takes a free block, so a block that
another table still names keeps its content.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence

from engine.cache.layout import CacheLayout
from engine.cache.prefix import PrefixIndex
from engine.cache.table import BlockTable

# Hashes remembered for each block of the pool after their blocks were evicted.
SEEN_PER_BLOCK = 8


class BlockAllocator:
    """Free list, owner counts and eviction order of `num_blocks` blocks.

    A block is held (it has owners), evictable (it has none, but its content is known and may be
    asked for again) or free. Free blocks are handed out first, the one given back last before the
    others, since its memory is warm; then evictable ones, the least recently used first.
    """

    def __init__(self, num_blocks: int, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self.num_evicted = 0
        self._free = deque(range(num_blocks))
        self._evictable: OrderedDict[int, None] = OrderedDict()
        self._num_owners = [0] * num_blocks
        self.index = PrefixIndex(SEEN_PER_BLOCK * num_blocks, now)

    @property
    def num_available(self) -> int:
        """Blocks without an owner: free or evictable."""
        return len(self._free) + len(self._evictable)

    @property
    def num_evictable(self) -> int:
        """Blocks without an owner whose content is known."""
        return len(self._evictable)

    def num_owners(self, block_id: int) -> int:
        """How many tables name the block."""
        return self._num_owners[block_id]

    def take(self) -> int:
        """A block to be written, now with one owner; one must be available."""
        if self._free:
            block_id = self._free.popleft()
        else:
            block_id, _ = self._evictable.popitem(last=False)
            self.index.forget(block_id)
            self.num_evicted += 1
        self._num_owners[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """One more owner for a held or evictable block."""
        if self._num_owners[block_id] == 0:
            del self._evictable[block_id]
        self._num_owners[block_id] += 1

    def give_back(self, block_id: int, *, is_worth_keeping: bool = True) -> None:
        """One owner less; without any, a block of known content becomes evictable, another one free.

        A block not worth keeping is the next to be evicted.
        """
        assert self._num_owners[block_id] > 0
        self._num_owners[block_id] -= 1
        if self._num_owners[block_id]:
            return
        if block_id not in self.index:
            self._free.appendleft(block_id)
            return
        self._evictable[block_id] = None
        self._evictable.move_to_end(block_id, last=is_worth_keeping)

    def forget_all(self) -> int:
        """Make every evictable block free, and held ones unknown to later sequences; how many were known."""
        num_known = len(self.index)
        self._free.extend(self._evictable)
        self._evictable.clear()
        self.index = PrefixIndex(SEEN_PER_BLOCK * len(self._num_owners), self._now)
        return num_known


class CachePool:
    """The blocks of one `CacheLayout`, lent to the tables of sequences. `now` tells seconds."""

    def __init__(self, layout: CacheLayout, now: Callable[[], float] = time.monotonic) -> None:
        self._layout = layout
        self._allocator = BlockAllocator(layout.num_blocks, now)
        self._windows = [(group.window, layout.block_size) for group in layout.groups]

    @property
    def layout(self) -> CacheLayout:
        """The plan that the pool was made from."""
        return self._layout

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no table names, those of known content included."""
        return self._allocator.num_available

    @property
    def num_evictable_blocks(self) -> int:
        """Blocks that no table names, and whose content may be asked for again."""
        return self._allocator.num_evictable

    @property
    def num_evicted_blocks(self) -> int:
        """Blocks so far whose known content made room for something else."""
        return self._allocator.num_evicted

    def num_owners(self, block_id: int) -> int:
        """How many tables name the block; 0 for one that is available."""
        return self._allocator.num_owners(block_id)

    def reserve(self, tables: Sequence[BlockTable], stop: int) -> bool:
        """Make every position of a sequence below `stop` writable that is not yet.

        Answers False, and takes nothing, where there are too few available blocks.
        """
        num_blocks = self._blocks_up_to(stop)
        for table in tables:
            if table.next_block < num_blocks:
                break
        else:
            return True  # as in nearly every step of a decode
        num_missing = [max(0, num_blocks - table.next_block) for table in tables]
        if sum(num_missing) > self._allocator.num_available:
            return False
        for table, missing in zip(tables, num_missing, strict=True):
            for _ in range(missing):
                table.append(self._allocator.take())
        return True

    def roll(self, tables: Sequence[BlockTable], num_computed: int, boundaries: Sequence[int] = ()) -> None:
        """Give back the blocks that no query at `num_computed` or later can see.

        Of those, the last window before each of the positions `boundaries` is worth keeping:
        another request with the same beginning goes on from there.
        """
        for table in tables:
            if table.window is None:
                continue
            live = min(table.first_live_block(num_computed), table.next_block)
            while table.first_block < live:
                number = table.first_block
                is_worth_keeping = any(
                    table.first_live_block(position) <= number <= position // table.block_size
                    for position in boundaries
                )
                self._allocator.give_back(table.drop_first(), is_worth_keeping=is_worth_keeping)

    def release(self, tables: Sequence[BlockTable]) -> None:
        """Give everything back, and let the tables begin at position 0; may be repeated.

        The newest block goes first, so that of a cached sequence the beginning lasts longest.
        """
        for table in tables:
            for block_id in [table.drop_first() for _ in range(table.num_held)][::-1]:
                self._allocator.give_back(block_id)
            table.begin_at(0)

    def remember(self, tables: Sequence[BlockTable], hashes: Sequence[bytes], first: int, stop: int) -> None:
        """Note that blocks number [first, stop), computed in full, hold the content of their hashes."""
        for group, table in enumerate(tables):
            for number in range(max(first, table.first_block), stop):
                self._allocator.index.put(group, hashes[number], table.block_id(number))

    def attach_cached(self, tables: Sequence[BlockTable], hashes: Sequence[bytes], max_tokens: int) -> int:
        """Share the longest known beginning, at most `max_tokens` positions, with empty tables.

        Answers how many positions need no computing: whole blocks, possibly none.
        """
        num_blocks = self._allocator.index.longest_hit(
            hashes, max_tokens // self._layout.block_size, self._windows
        )
        num_tokens = num_blocks * self._layout.block_size
        for group, table in enumerate(tables):
            first = table.first_live_block(num_tokens)
            table.begin_at(first)
            for number in range(first, num_blocks):
                block_id = self._allocator.index.find(group, hashes[number])
                assert block_id is not None
                self._allocator.share(block_id)
                table.append(block_id)
        return num_tokens

    def junction(self, hashes: Sequence[bytes]) -> int:
        """How many leading positions earlier sequences had in common with this one, cached or not."""
        return self._allocator.index.num_seen(hashes) * self._layout.block_size

    def evicted_s_ago(self, block_hash: bytes) -> float | None:
        """How long ago a block with that content made room for something else; None: not known to have."""
        return self._allocator.index.evicted_s_ago(block_hash)

    def attach(self, source: Sequence[BlockTable], target: Sequence[BlockTable], num_tokens: int) -> None:
        """Share the first `num_tokens` positions of one sequence with another that holds nothing.

        `num_tokens` is a multiple of the block size, all of them computed, and exactly as many as
        `source` has computed: so its tables still hold all that a query at `num_tokens` sees.
        Only full blocks are shared, and nobody writes to those again.
        """
        assert num_tokens % self._layout.block_size == 0
        for own, other in zip(source, target, strict=True):
            first = own.first_live_block(num_tokens)
            other.begin_at(first)
            for number in range(first, self._blocks_up_to(num_tokens)):
                block_id = own.block_id(number)
                self._allocator.share(block_id)
                other.append(block_id)

    def forget_cached(self) -> int:
        """Forget all known content; what sequences hold stays theirs. How many blocks were forgotten."""
        return self._allocator.forget_all()

    def _blocks_up_to(self, stop: int) -> int:
        return -(-stop // self._layout.block_size)
