"""`BlockTable`: a sequence's ring of blocks for one cache group, and the map from position to slot.

The table decides nothing: `CachePool` puts blocks in and takes them out.
"""

from engine.plan import ChunkTable

NO_BLOCK = -1


class BlockTable:
    """A ring of M entries; block number k lies in entry k mod M.

    Source: Jiang et al. 2023, Mistral 7B (arXiv 2310.06825): rolling buffer cache, here over blocks.
    The blocks held are always the consecutive numbers [first_block, next_block), at most M of them.
    """

    __slots__ = ("_entries", "_view", "block_size", "first_block", "next_block", "window")

    def __init__(self, *, window: int | None, ring_blocks: int, block_size: int) -> None:
        self.window = window
        self.block_size = block_size
        self.first_block = 0
        self.next_block = 0
        self._entries = [NO_BLOCK] * ring_blocks
        self._view: ChunkTable | None = None

    @property
    def num_held(self) -> int:
        """Blocks in the ring now."""
        return self.next_block - self.first_block

    @property
    def ring_blocks(self) -> int:
        """M, the most blocks the ring can hold."""
        return len(self._entries)

    def first_live_block(self, num_computed: int) -> int:
        """Number of the oldest block that a query at position `num_computed` or later can see.

        With W = 8 and B = 4, the query at 11 sees 4..11: blocks 1 and 2.
        """
        if self.window is None:
            return 0
        return max(0, num_computed - self.window + 1) // self.block_size

    def block_id(self, number: int) -> int:
        """The pool's id of block `number`, which must be held."""
        assert self.first_block <= number < self.next_block
        return self._entries[number % len(self._entries)]

    def begin_at(self, number: int) -> None:
        """Let an empty table start with block `number`: what lies before is out of sight."""
        assert self.num_held == 0
        self.first_block = self.next_block = number

    def append(self, block_id: int) -> None:
        """Put `block_id` in as the next block; its entry must have been given up."""
        entry = self.next_block % len(self._entries)
        assert self._entries[entry] == NO_BLOCK
        self._entries[entry] = block_id
        self.next_block += 1
        self._view = None

    def drop_first(self) -> int:
        """Take the oldest block out, and return its id."""
        block_id = self.block_id(self.first_block)
        self._entries[self.first_block % len(self._entries)] = NO_BLOCK
        self.first_block += 1
        self._view = None
        return block_id

    def slots(self, start: int, stop: int) -> list[int]:
        """Slots of positions [start, stop), in order.

        With block_size 4, ring_blocks 3 and entries [7, 2, 9]:

            positions   4..7   8..11   12..15
            entry       1      2       0          rolled over
            slots       8..11  36..39  28..31

        The positions must lie in blocks that are held.
        """
        size = self.block_size
        return [self.block_id(position // size) * size + position % size for position in range(start, stop)]

    def view(self) -> ChunkTable:
        """The held blocks, oldest first, as a plan carries them; a snapshot."""
        if self._view is None:
            numbers = range(self.first_block, self.next_block)
            ids = tuple(self._entries[number % len(self._entries)] for number in numbers)
            self._view = ChunkTable(first_block=self.first_block, block_ids=ids)
        return self._view
