"""`PrefixReuse`: lets sequences begin behind what is cached, and tells why they begin no later.

It stands between the scheduler, which says when, and the pool, which has the blocks.
"""

from collections import Counter

from engine.cache.pool import CachePool
from engine.prefix_report import MissReason, PrefixCounters, PrefixReport
from engine.scheduling.claims import Claims
from engine.scheduling.sequence import Sequence


class PrefixReuse:
    """Attaches sequences to cached blocks, makes computed ones known, and counts both.

    Sequences without a hash chain, as all are without a prefix cache, pass through untouched.
    """

    def __init__(self, pool: CachePool) -> None:
        self._pool = pool
        self._claims = Claims()
        self._reasons: Counter[MissReason | None] = Counter()
        self._num_hits = 0
        self._num_tokens = 0
        self._num_cached_tokens = 0
        self._num_cleared_blocks = 0

    @property
    def counters(self) -> PrefixCounters:
        """The sums as they are now."""
        reasons = self._reasons
        return PrefixCounters(
            num_lookups=sum(reasons.values()),
            num_hits=self._num_hits,
            num_complete=reasons[None],
            num_never_seen=reasons[MissReason.NEVER_SEEN],
            num_salted=reasons[MissReason.SALTED],
            num_differs=reasons[MissReason.DIFFERS],
            num_evicted=reasons[MissReason.EVICTED],
            num_too_short=reasons[MissReason.TOO_SHORT],
            num_scored=reasons[MissReason.SCORED],
            num_tokens=self._num_tokens,
            num_cached_tokens=self._num_cached_tokens,
            num_evicted_blocks=self._pool.num_evicted_blocks,
            num_cleared_blocks=self._num_cleared_blocks,
        )

    def must_wait(self, sequence: Sequence) -> bool:
        """Whether the block that the sequence needs next is being computed by another."""
        return sequence.awaited_hash in self._claims

    def attach(self, sequence: Sequence) -> bool:
        """Let a sequence without blocks begin behind what is cached of it.

        False, and nothing taken, when a running sequence is computing the block that comes next.
        """
        if sequence.chain is None or sequence.num_computed:
            return True
        sequence.chain.extend(sequence.token_ids)
        hashes = sequence.chain.hashes
        block_size = sequence.tables[0].block_size
        num_cached = self._pool.attach_cached(sequence.tables, hashes, sequence.max_cached_tokens)
        has_next = num_cached + block_size <= sequence.max_cached_tokens
        sequence.awaited_hash = hashes[num_cached // block_size] if has_next else None
        if sequence.awaited_hash in self._claims:
            self._pool.release(sequence.tables)
            return False
        sequence.num_computed = sequence.num_planned = num_cached
        sequence.junction = self._pool.junction(hashes)
        if sequence.num_cached is None:
            sequence.num_cached = num_cached
            self._count(sequence, self._report(sequence))
        return True

    def claim(self, sequence: Sequence) -> None:
        """Let others know which blocks this sequence, now running, will compute."""
        if sequence.chain is not None:
            first = sequence.num_computed // sequence.tables[0].block_size
            self._claims.claim(sequence.sequence_id, sequence.chain.hashes[first:])

    def withdraw(self, sequence: Sequence) -> None:
        """It computes nothing for now; may be repeated."""
        self._claims.withdraw(sequence.sequence_id)

    def remember(self, sequence: Sequence, start: int) -> None:
        """Make the blocks that became full since position `start` known to others."""
        if sequence.chain is None:
            return
        block_size = sequence.tables[0].block_size
        first, stop = start // block_size, sequence.num_computed // block_size
        if first == stop:
            return
        sequence.chain.extend(sequence.token_ids)
        self._pool.remember(sequence.tables, sequence.chain.hashes, first, stop)
        self._claims.settle(sequence.sequence_id, stop - first)

    def clear(self) -> int:
        """Forget all that is cached; what sequences hold stays theirs. How many blocks were forgotten."""
        num_blocks = self._pool.forget_cached()
        self._num_cleared_blocks += num_blocks
        return num_blocks

    def _report(self, sequence: Sequence) -> PrefixReport:
        """Why a sequence that was just attached begins where it does.

        Had the block behind the match been known, the match would reach over it, with a window
        too: so that block is the one that was missing, or nobody was to look for it.
        """
        assert sequence.chain is not None
        block_size, num_matched = sequence.tables[0].block_size, sequence.num_computed
        number = num_matched // block_size
        is_missing = num_matched + block_size <= sequence.max_cached_tokens
        reason = self._missing_reason(sequence, number) if is_missing else None
        if not is_missing and num_matched + block_size < len(sequence.token_ids):
            reason = MissReason.SCORED
        elif not is_missing and number == 0:
            reason = MissReason.TOO_SHORT
        is_evicted = reason is MissReason.EVICTED
        return PrefixReport(
            num_matched_tokens=num_matched,
            block_size=block_size,
            miss_reason=reason,
            first_missing_block=number if is_missing else None,
            evicted_s_ago=self._pool.evicted_s_ago(sequence.chain.hashes[number]) if is_evicted else None,
        )

    def _missing_reason(self, sequence: Sequence, number: int) -> MissReason:
        """Why block `number`, the first one missing, is not there."""
        if number < sequence.junction // sequence.tables[0].block_size:
            return MissReason.EVICTED
        if number:
            return MissReason.DIFFERS
        return MissReason.SALTED if sequence.request.cache_salt else MissReason.NEVER_SEEN

    def _count(self, sequence: Sequence, report: PrefixReport) -> None:
        sequence.prefix_report = report
        self._reasons[report.miss_reason] += 1
        self._num_hits += bool(report.num_matched_tokens)
        self._num_tokens += len(sequence.request.prompt_ids)
        self._num_cached_tokens += report.num_matched_tokens
