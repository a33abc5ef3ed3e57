"""`CacheLayout`: which layers share a table, how long its ring is, what a block costs.

Pure arithmetic on a `ModelSpec`, done once at start; it holds neither blocks nor tensors.
"""

from collections import Counter
from dataclasses import dataclass
from math import gcd

from engine.cache.table import BlockTable
from engine.errors import ConfigError
from engine.model_spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheGroup:
    """Layers with the same window, which share one table per sequence.

    `ring_blocks` is M, the number of entries of that table.
    """

    layers: tuple[int, ...]
    window: int | None
    ring_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheLayout:
    """The plan of the pool's memory.

    All groups hold equally many layers, so that a block costs `block_bytes` in each of them and
    one pool of `num_blocks` serves them all. `max_context` is the most positions one sequence may
    come to have: what the model allows and what fits into the empty pool.
    """

    groups: tuple[CacheGroup, ...]
    block_size: int
    block_bytes: int
    num_blocks: int
    max_context: int

    def num_blocks_for(self, num_positions: int) -> int:
        """Most blocks a sequence of `num_positions` positions ever holds, over all groups."""
        return _blocks_for(self.groups, self.block_size, num_positions)

    def num_sequences_at(self, num_positions: int) -> int:
        """How many sequences of that length the pool holds at once."""
        return self.num_blocks // self.num_blocks_for(num_positions)

    def new_tables(self) -> tuple[BlockTable, ...]:
        """Empty tables for a new sequence, one per group."""
        return tuple(
            BlockTable(window=group.window, ring_blocks=group.ring_blocks, block_size=self.block_size)
            for group in self.groups
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheDemand:
    """What the layout has to provide for: sizes from the configuration and the device.

    `max_context` None means what the model was trained for; `max_chunk_tokens` is C; `scale_bytes`
    stand beside each head's key and value.
    """

    block_size: int
    cache_bytes: int
    max_chunk_tokens: int
    element_bytes: int
    max_context: int | None = None
    scale_bytes: int = 0


def plan_layout(spec: ModelSpec, demand: CacheDemand) -> CacheLayout:
    """Lay `spec`'s layers out in `demand.cache_bytes`.

    Raises ConfigError where the bytes do not hold a single useful sequence, naming the least that
    would, or where more context is asked for than the model has.
    """
    if demand.max_context is not None and demand.max_context > spec.max_context:
        raise ConfigError(
            f"max_context is {demand.max_context}, but the model was trained for {spec.max_context} positions"
        )
    wanted = demand.max_context or spec.max_context
    groups = _group_layers(spec, demand, wanted)
    layers_per_group = len(groups[0].layers)
    row_bytes = 2 * spec.num_kv_heads * (spec.head_size * demand.element_bytes + demand.scale_bytes)
    block_bytes = layers_per_group * demand.block_size * row_bytes
    num_blocks = demand.cache_bytes // block_bytes
    fitting = _longest_fitting(groups, demand.block_size, num_blocks, wanted)
    if fitting < min(wanted, demand.max_chunk_tokens):
        needed = _blocks_for(groups, demand.block_size, min(wanted, demand.max_chunk_tokens)) * block_bytes
        raise ConfigError(
            f"kv_cache_bytes is {demand.cache_bytes}, room for {fitting} positions; "
            f"one chunk of max_chunk_tokens {demand.max_chunk_tokens} needs at least {needed} bytes"
        )
    return CacheLayout(
        groups=groups,
        block_size=demand.block_size,
        block_bytes=block_bytes,
        num_blocks=num_blocks,
        max_context=fitting,
    )


def ring_blocks(window: int | None, max_chunk_tokens: int, block_size: int, max_context: int) -> int:
    """M: how many blocks the live positions of one sequence can touch.

    While C positions are uncommitted, W + C - 1 consecutive ones are alive, and n consecutive
    positions touch at most 1 + ceil((n - 1) / B) blocks:

        W = 8, C = 4, B = 4:  11 positions, at most 1 + ceil(10 / 4) = 4 blocks

    Full attention, and a window so long that it never moves, get a ring that never wraps.
    """
    whole = -(-max_context // block_size)
    if window is None:
        return whole
    return min(whole, 1 - (-(window + max_chunk_tokens - 2) // block_size))


def _group_layers(spec: ModelSpec, demand: CacheDemand, max_context: int) -> tuple[CacheGroup, ...]:
    """Groups of equally many layers: each window's layers, cut into runs of the common divisor."""
    size = gcd(*Counter(spec.layer_windows).values())
    groups: list[CacheGroup] = []
    for window in dict.fromkeys(spec.layer_windows):
        layers = [layer for layer, own in enumerate(spec.layer_windows) if own == window]
        blocks = ring_blocks(window, demand.max_chunk_tokens, demand.block_size, max_context)
        groups += [
            CacheGroup(layers=tuple(layers[i : i + size]), window=window, ring_blocks=blocks)
            for i in range(0, len(layers), size)
        ]
    return tuple(groups)


def _blocks_for(groups: tuple[CacheGroup, ...], block_size: int, num_positions: int) -> int:
    blocks = -(-num_positions // block_size)
    return sum(min(blocks, group.ring_blocks) for group in groups)


def _longest_fitting(groups: tuple[CacheGroup, ...], block_size: int, num_blocks: int, wanted: int) -> int:
    """The most positions, up to `wanted`, whose blocks fit into `num_blocks`."""
    if _blocks_for(groups, block_size, wanted) <= num_blocks:
        return wanted
    # What does not fit grows by one block per group and block of positions, until rings are full.
    low, high = 0, -(-wanted // block_size)
    while high - low > 1:
        middle = (low + high) // 2
        if _blocks_for(groups, block_size, middle * block_size) <= num_blocks:
            low = middle
        else:
            high = middle
    return low * block_size
