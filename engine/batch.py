"""`Batch`: the tensors of one step, and the letters by which all shapes in this project are named.

    T tokens in the step      S chunks in the step (one per sequence)     R wanted rows
    H query heads             K key/value heads                           D head size
    E model width             F feed-forward width                        V vocabulary
    L layers                  G cache groups                              B block size
    N blocks in the pool      M entries of the longest table in the step

Chunks are packed end to end: there is no leading batch dimension.
"""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupBatch:
    """Where the tokens of a step lie in one cache group.

    `tables` are rotated: the first entry is the oldest block a chunk reads, and position p of
    chunk s lies in slot `tables[s, (p - bases[s]) // B] * B + p % B`. Rows are padded with block 0.
    `window` counts the visible positions, the query's own included; None means all.
    `base_positions` are the bases once more, for kernels that may not wait for the host to tell.
    """

    window: int | None
    block_size: int
    slots: Tensor  # [T] int64: where each token's key and value are written
    tables: Tensor  # [S, M] int64
    bases: tuple[int, ...]  # [S] position of each table's first slot, a multiple of B
    base_positions: Tensor  # [S] int64, on the device


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The inputs of one forward pass. Chunk s is rows [row_starts[s], row_starts[s + 1]).

    `row_bounds` are the row starts once more, on the device.

    A *standing* batch is made once and computed in many steps: a token of each chunk, tables of constant
    width, and every tensor is filled anew before a step. Its `starts` and `bases` are empty, since only the
    device knows them: a chunk starts at its token's position.
    """

    token_ids: Tensor  # [T] int64
    positions: Tensor  # [T] int64
    wanted_rows: Tensor  # [R] int64: the rows whose final hidden state is wanted
    row_starts: tuple[int, ...]  # [S + 1]
    row_bounds: Tensor  # [S + 1] int64
    starts: tuple[int, ...]  # [S] first position of each chunk
    groups: tuple[GroupBatch, ...]  # [G]

    @property
    def num_chunks(self) -> int:
        """S."""
        return len(self.row_starts) - 1

    @property
    def is_standing(self) -> bool:
        """Whether what it computes may depend on nothing that the host knows."""
        return not self.starts


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerCache:
    """One layer's keys and values in the shared pool, and the cache group the layer belongs to.

    Several layers of *different* groups may share the same two tensors: a block has one owner.
    """

    group: int
    keys: Tensor  # [N * B, K, D]; of int8 [N * B, K, D + 4], see kernels/cached.py
    values: Tensor  # the same
