"""How much of a problem one program takes: fixed by head size and dtype, never searched for while serving.

A search at run time would break recorded graphs, and make sums depend on what was timed when. The
benchmark sweeps `decode_candidates` and `prefill_candidates`, and what wins is written here.
"""

from dataclasses import dataclass
from itertools import product

import torch

LEAST_SPLIT_TOKENS = 256
MOST_SPLITS = 32
LEAST_DOT = 16  # rows and columns below which the matrix units have no instruction
SHARED_BYTES = 200 << 10  # of the 227 KiB a block of Hopper may have


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockSizes:
    """Query rows and keys of one tile, and how the compiler spreads its loop."""

    rows: int
    keys: int
    num_warps: int
    num_stages: int

    def shared_bytes(self, width: int, dtype: torch.dtype) -> int:
        """Shared memory of a tile's queries, and of the keys and values in flight."""
        return width * dtype.itemsize * (self.rows + 2 * self.keys * max(1, self.num_stages))


def power_of_two(number: int) -> int:
    """The least power of two that is no less than `number`."""
    return 1 << max(0, number - 1).bit_length()


def head_width(head_size: int) -> int:
    """Columns of a tile that holds heads of `head_size`."""
    return max(LEAST_DOT, power_of_two(head_size))


def decode_sizes(group: int, width: int, dtype: torch.dtype) -> BlockSizes:
    """For one query and the `group` heads that share a key head: bound by memory, so few rows do."""
    rows = max(LEAST_DOT, power_of_two(group))
    if dtype.itemsize > 2:
        return BlockSizes(rows=rows, keys=32, num_warps=4, num_stages=2)
    return BlockSizes(rows=rows, keys=64 if width <= 128 else 32, num_warps=4, num_stages=3)


def prefill_sizes(group: int, width: int, dtype: torch.dtype) -> BlockSizes:
    """For many queries: as many rows as registers hold the sums of."""
    least = max(LEAST_DOT, power_of_two(group))
    if dtype.itemsize > 2:
        return BlockSizes(rows=max(least, 32 if width <= 128 else 16), keys=32, num_warps=4, num_stages=2)
    if width <= 64:
        return BlockSizes(rows=max(least, 128), keys=64, num_warps=4, num_stages=3)
    if width <= 128:
        return BlockSizes(rows=max(least, 128), keys=64, num_warps=8, num_stages=3)
    return BlockSizes(rows=max(least, 64), keys=32, num_warps=8, num_stages=2)


def decode_candidates(group: int, width: int, dtype: torch.dtype) -> tuple[BlockSizes, ...]:
    """What is worth timing in the place of `decode_sizes`."""
    rows = decode_sizes(group, width, dtype).rows
    return _fitting((rows,), (32, 64, 128), (2, 4, 8), (2, 3, 4), (width, dtype))


def prefill_candidates(group: int, width: int, dtype: torch.dtype) -> tuple[BlockSizes, ...]:
    """What is worth timing in the place of `prefill_sizes`."""
    rows = [max(LEAST_DOT, power_of_two(group), rows) for rows in (64, 128)]
    return _fitting(tuple(rows), (32, 64, 128), (4, 8), (2, 3, 4), (width, dtype))


def split_tokens(most_visible: int) -> int:
    """Positions of a split, for queries that see `most_visible` keys at most, at any length.

    Few enough splits that those which a short sequence does not have cost little.
    """
    return max(LEAST_SPLIT_TOKENS, power_of_two(-(-most_visible // MOST_SPLITS)))


def num_splits(most_visible: int, has_window: bool, size: int) -> int:
    """How many splits of `size` positions a query's keys can touch; a window may begin anywhere in one."""
    return (most_visible + size - 2) // size + 1 if has_window else -(-most_visible // size)


def _fitting(
    rows: tuple[int, ...],
    keys: tuple[int, ...],
    warps: tuple[int, ...],
    stages: tuple[int, ...],
    held: tuple[int, torch.dtype],
) -> tuple[BlockSizes, ...]:
    every = [
        BlockSizes(rows=own_rows, keys=own_keys, num_warps=own_warps, num_stages=own_stages)
        for own_rows, own_keys, own_warps, own_stages in product(dict.fromkeys(rows), keys, warps, stages)
    ]
    return tuple(sizes for sizes in every if sizes.shared_bytes(*held) <= SHARED_BYTES)
