"""Live sequences as plain views, and the pool as gauges: read only, between two steps."""

from collections.abc import Iterable

from engine.cache.pool import CachePool
from engine.cache.table import BlockTable
from engine.scheduling.sequence import Sequence
from engine.stats import PoolGauges, RingView, SequenceView


def view_of(sequence: Sequence) -> SequenceView:
    """The sequence as it stands."""
    return SequenceView(
        sequence_id=sequence.sequence_id,
        request_id=sequence.request.request_id,
        caller=sequence.request.caller,
        choice=sequence.choice,
        state=sequence.state.value,
        priority=sequence.request.priority,
        num_prompt_tokens=len(sequence.request.prompt_ids),
        num_tokens=len(sequence.token_ids),
        num_computed=sequence.num_computed,
        num_cached=sequence.num_cached,
        rings=tuple(_ring(table, sequence.num_computed) for table in sequence.tables),
    )


def gauges_of(pool: CachePool, sequences: Iterable[Sequence]) -> PoolGauges:
    """The pool, and what the live sequence with most blocks holds of it."""
    layout = pool.layout
    held = (sum(table.num_held for table in sequence.tables) for sequence in sequences)
    return PoolGauges(
        num_blocks=layout.num_blocks,
        num_free=pool.num_free_blocks - pool.num_evictable_blocks,
        num_evictable=pool.num_evictable_blocks,
        max_sequence_blocks=max(held, default=0),
        sequence_blocks_bound=layout.num_blocks_for(layout.max_context),
    )


def _ring(table: BlockTable, num_computed: int) -> RingView:
    base = table.first_block * table.block_size
    return RingView(
        window=table.window,
        block_ids=table.view().block_ids,
        base=base,
        length=max(0, num_computed - base),
        max_blocks=table.ring_blocks,
    )
