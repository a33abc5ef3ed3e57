"""`Scheduler`: decides each step who computes how many tokens, who waits, and who gives way.

`plan` decides, somebody computes, `commit` records. There are no phases: each step a sequence
computes its next uncomputed positions, many of a prompt or one of a continuation. The scheduler
knows no tensors, no text and no channel, and is called from one thread.
"""

import time
from collections.abc import Callable, Iterable

from engine.cache.pool import CachePool
from engine.config import SchedulingConfig
from engine.errors import StepError
from engine.messages import Load, Updates
from engine.plan import Chunk, StepPlan, StepResult
from engine.prefix_report import PrefixCounters
from engine.scheduling.headroom import new_admission
from engine.scheduling.news import News
from engine.scheduling.order import PlaceList, Waiting
from engine.scheduling.prefix_reuse import PrefixReuse
from engine.scheduling.sequence import Sequence, SequenceState


class Scheduler:
    """The queues, and the rules by which sequences move between them.

    Each sequence has a fixed place, by arrival and priority: an earlier one may take the blocks of a
    later one (which is then preempted: it waits, and is computed again from its first position),
    never the reverse. Below, "older" and "younger" mean this order. Who is admitted next is another
    matter, of fairness between callers; `order` tells both, and why all of them end.
    """

    def __init__(
        self,
        config: SchedulingConfig,
        pool: CachePool,
        eos_ids: frozenset[int],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """`now` tells seconds since some moment."""
        self._config = config
        self._now = now
        self._pool = pool
        self._eos_ids = eos_ids
        self._has_windows = any(group.window is not None for group in pool.layout.groups)
        self._waiting = Waiting()
        self._running = PlaceList()
        self._admission = new_admission(config.admission, pool)
        self._known: dict[int, Sequence] = {}  # until the last step that touches it is committed
        self._by_request: dict[str, tuple[Sequence, ...]] = {}
        self._prefixes = PrefixReuse(pool)
        self._num_steps = 0
        self._num_preemptions = 0

    @property
    def has_work(self) -> bool:
        """Whether any sequence has not ended."""
        return bool(self._waiting or self._running)

    @property
    def load(self) -> Load:
        """The queues and the pool as they are now."""
        return Load(
            len(self._running),
            len(self._waiting),
            self._pool.num_free_blocks,
            self._num_steps,
            self._num_preemptions,
        )

    @property
    def prefix_counters(self) -> PrefixCounters:
        """What became of look-ups in the prefix cache since the start."""
        return self._prefixes.counters

    @property
    def live(self) -> tuple[Sequence, ...]:
        """All sequences that have not ended: those that run, then those that wait, in turn."""
        return (*self._running, *self._waiting.in_turn())

    @property
    def pool(self) -> CachePool:
        """The blocks that it hands out; for reading only."""
        return self._pool

    def add(self, sequences: tuple[Sequence, ...]) -> None:
        """Queue the choices of one request."""
        self._by_request[sequences[0].request.request_id] = sequences
        arrived_s = self._now()
        for sequence in sequences:
            sequence.take_place(arrived_s, self._config.priority_ageing_s)
            self._known[sequence.sequence_id] = sequence
            self._waiting.add(sequence)

    def abort(self, request_id: str) -> None:
        """End all choices of a request without news of it; an unknown or ended one is ignored."""
        for sequence in self._by_request.get(request_id, ()):
            self._end(sequence)

    def finish(self, request_id: str, choice: int) -> None:
        """End one choice without news of it, because its text is complete."""
        for sequence in self._by_request.get(request_id, ()):
            if sequence.choice == choice:
                self._end(sequence)

    def clear_cache(self) -> int:
        """Forget what is cached for later sequences; how many blocks were forgotten."""
        return self._prefixes.clear()

    def plan(self) -> StepPlan:
        """The next step: a token for each running sequence that decodes, then longer chunks.

        The tokens of decodes are set aside from the budget first, so a long prompt delays nobody
        by more than the step it is in, and a step that decodes takes few others. What is left admits
        waiting sequences, unless somebody is short of blocks already. The plan is empty only when
        nothing is left to do, or what is left waits for a step in flight.
        """
        chunks: list[Chunk] = []
        wanted = [(sequence, sequence.num_to_plan) for sequence in self._running]
        budget = self._chunk_budget([num_wanted for _, num_wanted in wanted].count(1))
        is_short = False
        for sequence, num_wanted in wanted:
            if sequence.state is not SequenceState.RUNNING or sequence.must_preempt:
                continue  # it gave way to an older one, in this step or the one before
            decodes = num_wanted == 1
            chunk = sequence.next_token_chunk() if decodes else None
            if chunk is not None:  # as for nearly every sequence: the rest has nothing to decide
                sequence.num_planned = chunk.stop
                sequence.num_steps_in_flight += 1
                sequence.num_draws_in_flight += 1
                chunks.append(chunk)
                continue
            num_tokens = self._chunk_size(sequence, num_wanted, 1 if decodes else budget)
            if num_tokens == 0:
                continue
            if not self._make_room(sequence, num_tokens):
                is_short = True
                continue
            chunks.append(self._take_chunk(sequence, num_tokens))
            budget -= 0 if decodes else num_tokens
        if not is_short or not self._running:
            chunks += self._admit(budget)
        return StepPlan(chunks=tuple(chunks))

    def commit(self, plan: StepPlan, result: StepResult) -> Updates:
        """Record what a step found: counts rise, tokens are appended, ended sequences let go.

        Plans are committed in the order in which they were made. News of a sequence that has
        ended meanwhile is dropped.
        """
        news = News()
        self._num_steps += bool(plan.chunks)
        found = zip(result.token_ids, result.logprobs, result.scores, strict=True)
        for chunk, (token_ids, logprobs, scores) in zip(plan.chunks, found, strict=True):
            sequence = self._known[chunk.sequence_id]
            sequence.num_steps_in_flight -= 1
            sequence.num_draws_in_flight -= chunk.draw is not None
            if sequence.is_finished:
                self._forget_when_idle(sequence)
                continue
            sequence.num_computed = chunk.stop
            self._keep(sequence, chunk.start)
            num_scored = len(scores.logprobs)
            sequence.num_scored += num_scored
            num_added, reason = sequence.append(token_ids, self._eos_ids)
            if sequence.constraint is not None and sequence.failure is not None:
                self._end(sequence)
                news.add_failure(sequence.sequence_id, sequence.failure)
                continue
            if num_added or num_scored or reason is not None:
                if num_added < len(token_ids):
                    token_ids, logprobs = token_ids[:num_added], logprobs.first(num_added)  # noqa: PLW2901  what is told
                news.add(sequence.sequence_id, token_ids, reason, logprobs=logprobs, prompt_scores=scores)
            if num_added == sequence.num_output_tokens and (num_added or reason is not None):
                news.add_prefix(sequence)
            if num_added:
                self._waiting.charge_output(sequence, num_added)
            if reason is not None:
                self._end(sequence)
            elif sequence.must_preempt:
                self._preempt_when_idle(sequence)
        return news.to_updates(self.load)

    def fail(self, plan: StepPlan, error: StepError) -> Updates:
        """Record that a step could not be computed: its sequences end with `error`."""
        news = News()
        self._num_steps += 1
        for chunk in plan.chunks:
            sequence = self._known[chunk.sequence_id]
            sequence.num_steps_in_flight -= 1
            sequence.num_draws_in_flight -= chunk.draw is not None
            if sequence.is_finished:
                self._forget_when_idle(sequence)
                continue
            self._end(sequence)
            news.add_failure(sequence.sequence_id, error)
        return news.to_updates(self.load)

    def _admit(self, budget: int) -> Iterable[Chunk]:
        """First chunks of waiting sequences in turn, while budget, places and blocks last.

        A sequence that finds no blocks keeps those behind it waiting too.
        """
        if budget == 0 or len(self._running) >= self._config.max_running or not self._waiting:
            return
        headroom = self._admission.headroom(self._running)
        for sequence in self._waiting.in_turn():
            if sequence.awaits_leader or self._prefixes.must_wait(sequence):
                continue  # what it needs next is being computed already
            if not self._admission.takes(sequence):
                return
            if not self._prefixes.attach(sequence):
                self._admission.lets_go(sequence)
                continue
            num_tokens = self._chunk_size(sequence, sequence.num_to_plan, budget)
            fits = self._fits_beside(sequence, sequence.num_planned + num_tokens, headroom)
            if fits or sequence.holds_blocks:
                self._waiting.begin(sequence)
            if not fits:
                return
            self._waiting.remove(sequence)
            self._running.add(sequence)
            sequence.state = SequenceState.RUNNING
            headroom += self._admission.headroom((sequence,))
            self._share_prompt(sequence)
            self._prefixes.claim(sequence)
            budget -= num_tokens
            yield self._take_chunk(sequence, num_tokens)
            if budget == 0 or len(self._running) >= self._config.max_running:
                return

    def _fits_beside(self, sequence: Sequence, stop: int, headroom: int) -> bool:
        """Reserve up to `stop` if `headroom` blocks stay free; take nothing otherwise.

        Younger sequences that wait with blocks give them up for it.
        """
        while True:
            missing = sum(
                max(0, -(-stop // table.block_size) - table.next_block) for table in sequence.tables
            )
            if missing + (headroom if self._running else 0) <= self._pool.num_free_blocks:
                return self._pool.reserve(sequence.tables, stop)
            holder = self._waiting.youngest_holder(sequence)
            if holder is None:
                return False
            self._preempt_when_idle(holder, ask=True)

    def _chunk_budget(self, num_decodes: int) -> int:
        """Tokens that are left for longer chunks beside so many decodes."""
        left = self._config.max_step_tokens - num_decodes
        most = self._config.max_mixed_tokens
        return left if num_decodes == 0 or most is None else min(left, most)

    def _chunk_size(self, sequence: Sequence, num_wanted: int, budget: int) -> int:
        """How many of the positions that the sequence wants it may compute next.

        A leader stops at the end of the blocks that its followers are to share, so that they
        attach at exactly the point that it has reached.
        """
        most = self._config.max_chunk_tokens - sequence.num_planned + sequence.num_computed
        num_tokens = min(num_wanted, budget, most)
        if sequence.followers and sequence.num_planned < sequence.shared_tokens:
            num_tokens = min(num_tokens, sequence.shared_tokens - sequence.num_planned)
        return num_tokens if num_tokens > 0 else 0

    def _take_chunk(self, sequence: Sequence, num_tokens: int) -> Chunk:
        chunk = sequence.next_chunk(num_tokens, self._eos_ids)
        if sequence.num_planned < sequence.num_prompt:
            self._waiting.charge_prompt(sequence, chunk.stop)
        sequence.num_planned = chunk.stop
        sequence.num_steps_in_flight += 1
        sequence.num_draws_in_flight += chunk.draw is not None
        return chunk

    def _make_room(self, sequence: Sequence, num_tokens: int) -> bool:
        """Reserve the next `num_tokens` positions, preempting younger sequences for it.

        False when `sequence` itself is the youngest, which then gives way, or when the blocks come
        free only with a step in flight.
        """
        stop = sequence.num_planned + num_tokens
        while not self._pool.reserve(sequence.tables, stop):
            victim = self._youngest_holder(sequence)
            self._preempt_when_idle(victim, ask=True)
            if victim is sequence or victim.must_preempt:
                return False
        return True

    def _youngest_holder(self, sequence: Sequence) -> Sequence:
        """Whose blocks go next: those of a younger waiting sequence, else of the youngest running one."""
        running = next((s for s in reversed(self._running) if not s.must_preempt), sequence)
        return self._waiting.youngest_holder(sequence) or running

    def _preempt_when_idle(self, sequence: Sequence, *, ask: bool = False) -> None:
        """Send a sequence back to the queue, without its blocks, once no step in flight touches it.

        Nothing in flight is lost: its results are committed first.
        """
        sequence.must_preempt |= ask
        if not sequence.must_preempt or sequence.num_steps_in_flight:
            return
        sequence.must_preempt = False
        self._prefixes.withdraw(sequence)
        self._pool.release(sequence.tables)
        sequence.num_computed = sequence.num_planned = 0
        if sequence.state is SequenceState.RUNNING:
            self._running.remove(sequence)
            sequence.state = SequenceState.WAITING
            self._num_preemptions += 1
            self._waiting.add(sequence)

    def _keep(self, sequence: Sequence, start: int) -> None:
        """What follows from the positions from `start` on being computed now: for others, and for blocks."""
        self._prefixes.remember(sequence, start)
        if sequence.followers:
            self._share_prompt(sequence)
        if self._has_windows:
            boundaries = (sequence.shared_tokens, sequence.junction)
            self._pool.roll(sequence.tables, sequence.num_computed, boundaries)

    def _share_prompt(self, leader: Sequence) -> None:
        """Attach the followers once the leader has computed exactly what they are to share."""
        if not leader.followers or leader.num_computed != leader.shared_tokens:
            return
        for follower in leader.followers:
            follower.leader = None
            if follower.state is SequenceState.WAITING and self._admission.takes(follower):
                self._waiting.begin(follower)
                self._pool.attach(leader.tables, follower.tables, leader.shared_tokens)
                follower.num_computed = follower.num_planned = leader.shared_tokens
        leader.followers = []

    def _end(self, sequence: Sequence) -> None:
        """Take a sequence out of its queue for good; may be repeated."""
        if sequence.is_finished:
            return
        if sequence.state is SequenceState.RUNNING:
            self._running.remove(sequence)
        else:
            self._waiting.remove(sequence)
        self._prefixes.withdraw(sequence)
        sequence.state = SequenceState.FINISHED
        self._forget_when_idle(sequence)

    def _forget_when_idle(self, sequence: Sequence) -> None:
        """Let an ended sequence's blocks go once no step in flight reads or writes them."""
        if sequence.num_steps_in_flight:
            return
        self._pool.release(sequence.tables)
        self._admission.lets_go(sequence)
        del self._known[sequence.sequence_id]
        siblings = self._by_request[sequence.request.request_id]
        if not any(sibling.sequence_id in self._known for sibling in siblings):
            del self._by_request[sequence.request.request_id]
