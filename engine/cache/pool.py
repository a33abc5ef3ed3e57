"""Who owns which block: `BlockAllocator` counts owners, `CachePool` fills and empties tables.

Bookkeeping only, in integers: the tensors are the `CacheStore`, and when a block may be taken or
must be given back is the scheduler's business. A block that falls out of a window is *replaced*,
never overwritten: the table gives up its share of it and takes a free block, so a block that
another table still names keeps its content.
"""

from collections import deque
from collections.abc import Sequence

from engine.cache.layout import CacheLayout
from engine.cache.table import BlockTable


class BlockAllocator:
    """Free list and owner counts of `num_blocks` blocks.

    What was given back last is handed out first: its memory is warm, and a rolling window gets the
    very block back that it just gave up.
    """

    def __init__(self, num_blocks: int) -> None:
        self._free = deque(range(num_blocks))
        self._num_owners = [0] * num_blocks

    @property
    def num_free(self) -> int:
        """Blocks without an owner."""
        return len(self._free)

    @property
    def num_blocks(self) -> int:
        """All blocks."""
        return len(self._num_owners)

    def num_owners(self, block_id: int) -> int:
        """How many tables name the block."""
        return self._num_owners[block_id]

    def take(self) -> int:
        """A free block, now with one owner; there must be one."""
        block_id = self._free.popleft()
        self._num_owners[block_id] = 1
        return block_id

    def share(self, block_id: int) -> None:
        """One more owner for a held block."""
        assert self._num_owners[block_id] > 0
        self._num_owners[block_id] += 1

    def give_back(self, block_id: int) -> None:
        """One owner less; the last one frees the block."""
        assert self._num_owners[block_id] > 0
        self._num_owners[block_id] -= 1
        if self._num_owners[block_id] == 0:
            self._free.appendleft(block_id)


class CachePool:
    """The blocks of one `CacheLayout`, lent to the tables of sequences."""

    def __init__(self, layout: CacheLayout) -> None:
        self._layout = layout
        self._allocator = BlockAllocator(layout.num_blocks)

    @property
    def layout(self) -> CacheLayout:
        """The plan that the pool was made from."""
        return self._layout

    @property
    def num_free_blocks(self) -> int:
        """Blocks that no table names."""
        return self._allocator.num_free

    def num_owners(self, block_id: int) -> int:
        """How many tables name the block; 0 for a free one."""
        return self._allocator.num_owners(block_id)

    def reserve(self, tables: Sequence[BlockTable], num_computed: int, stop: int) -> bool:
        """Make every position in [num_computed, stop) of a sequence writable.

        Blocks that no query from `num_computed` on can see are given back first. Answers False,
        and takes nothing, where there are too few free blocks.
        """
        self.roll(tables, num_computed)
        num_missing = [max(0, self._blocks_up_to(stop) - table.next_block) for table in tables]
        if sum(num_missing) > self._allocator.num_free:
            return False
        for table, missing in zip(tables, num_missing, strict=True):
            for _ in range(missing):
                table.append(self._allocator.take())
        return True

    def roll(self, tables: Sequence[BlockTable], num_computed: int) -> None:
        """Give back the blocks that no query at `num_computed` or later can see."""
        for table in tables:
            live = min(table.first_live_block(num_computed), table.next_block)
            while table.first_block < live:
                self._allocator.give_back(table.drop_first())

    def release(self, tables: Sequence[BlockTable]) -> None:
        """Give everything back, and let the tables begin at position 0; may be repeated."""
        for table in tables:
            while table.num_held:
                self._allocator.give_back(table.drop_first())
            table.begin_at(0)

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

    def _blocks_up_to(self, stop: int) -> int:
        return -(-stop // self._layout.block_size)
