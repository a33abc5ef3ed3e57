"""`Sequence`: one growing run of tokens, and how far it is computed.

A record that the Scheduler alone changes. It knows no device, no queue and no other request.
"""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from engine.cache.prefix import HashChain
from engine.cache.table import BlockTable
from engine.errors import EngineError
from engine.plan import Chunk, Draw
from engine.prefix_report import MissReason, PrefixReport
from engine.request import FinishReason, Request


class SequenceState(StrEnum):
    """Where a sequence stands: in the queue, among those computed each step, or at its end."""

    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class Constraint(Protocol):
    """What a sequence's tokens have to follow; each of its draws is masked with what may come next.

    It depends on the tokens drawn alone, so that a preemption does not touch it.
    """

    @property
    def is_complete(self) -> bool:
        """Whether nothing may come next, since the end was drawn or nothing else is left."""
        ...

    @property
    def failure(self) -> EngineError | None:
        """Why it cannot be followed any further; None while it can."""
        ...

    def advance(self, token_id: int) -> None:
        """Take the token that was drawn."""
        ...


@dataclass(slots=True, kw_only=True, eq=False)
class Sequence:
    """One choice of a request.

    Counts, always `0 <= num_computed <= num_planned <= len(token_ids) + num_draws_in_flight`:
    positions below `num_computed` are committed, those below `num_planned` are in some step in
    flight or committed. `num_steps_in_flight` counts the uncommitted steps that touch the
    sequence; its blocks do not change hands while there are any. Ids grow in order of arrival.

    The choices of one request share the prompt's full blocks: the first one is the `leader`, the
    others wait among its `followers` until it has computed `shared_tokens` positions. `num_scored`
    counts the positions whose prompt successors are scored and told, `num_charged` those of the prompt
    that its caller has paid for; a preemption does not undo that.

    `place` is its fixed place among all sequences. It `has_begun` once it runs, or holds blocks while
    it waits. In each group it never holds more than `worst_blocks`.

    `chain` hashes its full blocks, None without a prefix cache; `num_cached` positions were found
    there when it first ran, and `prefix_report` says why no more; `awaited_hash` is the block that
    another one was computing when it was last looked at; `junction` is where it leaves what was seen
    before. `constraint` is None where any token may be drawn.

    Six things follow from the rest, and are worked out once, since every step asks: the length of
    the prompt; how many positions are ever computed, which the last token that `max_tokens` allows is
    not; how many of them the choices of a request share, whole blocks short of the prompt's last
    token; how many leading ones have successors to score, of which one choice speaks for all; the
    draw of a token that depends on none before; and whether every one of its draws is such a draw.
    """

    sequence_id: int
    request: Request
    choice: int
    tables: tuple[BlockTable, ...]
    token_ids: list[int] = field(repr=False)
    num_computed: int = 0
    num_planned: int = 0
    num_draws_in_flight: int = 0
    num_steps_in_flight: int = 0
    num_scored: int = 0
    num_charged: int = 0
    state: SequenceState = SequenceState.WAITING
    has_begun: bool = False
    must_preempt: bool = False
    place: tuple[float, int] = (0.0, 0)
    worst_blocks: tuple[int, ...] = ()
    chain: HashChain | None = field(default=None, repr=False)
    num_cached: int | None = None
    prefix_report: PrefixReport | None = None
    awaited_hash: bytes | None = None
    junction: int = 0
    constraint: Constraint | None = field(default=None, repr=False)
    leader: "Sequence | None" = field(default=None, repr=False)
    followers: "list[Sequence]" = field(default_factory=list, repr=False)
    num_prompt: int = field(init=False)
    num_computable: int = field(init=False)
    shared_tokens: int = field(init=False)
    num_to_score: int = field(init=False)
    plain_draw: Draw = field(init=False, repr=False)
    draws_plainly: bool = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt = len(self.request.prompt_ids)
        self.num_computable = self.num_prompt + max(0, self.request.sampling.max_tokens - 1)
        block_size = self.tables[0].block_size
        self.shared_tokens = (self.num_prompt - 1) // block_size * block_size
        sampling = self.request.sampling
        self.num_to_score = 0 if sampling.prompt_logprobs is None or self.choice else self.num_prompt - 1
        self.plain_draw = Draw(sampling=sampling, choice=self.choice)
        self.draws_plainly = not (sampling.looks_back or sampling.min_tokens)

    @property
    def num_to_plan(self) -> int:
        """Positions that could be computed now: up to the newest token, drawn or being drawn.

        A token being drawn is waited for where the next draw must know it.
        """
        newest = len(self.token_ids)
        if self.num_draws_in_flight and not self.request.sampling.looks_back:
            newest += self.num_draws_in_flight
        return (newest if newest < self.num_computable else self.num_computable) - self.num_planned

    @property
    def num_uncommitted(self) -> int:
        """Positions in steps in flight."""
        return self.num_planned - self.num_computed

    @property
    def num_output_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids) - self.num_prompt

    @property
    def failure(self) -> EngineError | None:
        """Why it cannot go on; None while it can."""
        return None if self.constraint is None else self.constraint.failure

    @property
    def is_finished(self) -> bool:
        """Whether it has ended, one way or another."""
        return self.state is SequenceState.FINISHED

    @property
    def awaits_leader(self) -> bool:
        """Whether its prompt is being computed by an earlier choice of the same request."""
        return self.leader is not None and not self.leader.is_finished

    @property
    def max_cached_tokens(self) -> int:
        """How many leading positions may be taken from the cache: not the last, and none yet to be scored."""
        is_scored = self.request.sampling.prompt_logprobs is not None and self.choice == 0
        return min(len(self.token_ids) - 1, self.num_scored if is_scored else len(self.token_ids))

    @property
    def holds_blocks(self) -> bool:
        """Whether any table names a block."""
        return any(table.num_held for table in self.tables)

    def take_place(self, arrived_s: float, priority_ageing_s: float) -> None:
        """Take its place among all sequences, for good; a point of priority weighs so many seconds."""
        self.place = (arrived_s + self.request.priority * priority_ageing_s, self.sequence_id)

    def next_chunk(self, num_tokens: int, eos_ids: frozenset[int]) -> Chunk:
        """The next `num_tokens` unplanned positions, as a plan carries them; their slots are reserved."""
        start, num_known = self.num_planned, len(self.token_ids)
        stop, newest = start + num_tokens, num_known + self.num_draws_in_flight
        draw = None
        if stop == newest and self.request.sampling.max_tokens:
            draw = self.plain_draw if self.draws_plainly else self._draw(newest, eos_ids)
        chunk = Chunk(
            self.sequence_id,
            start,
            stop,
            tuple(self.token_ids[start:stop]),
            tuple([table.view() for table in self.tables]),
            stop > num_known,
            draw,
        )
        return self._with_scores(chunk) if start < self.num_to_score else chunk

    def next_token_chunk(self) -> Chunk | None:
        """What `next_chunk` gives for one token in the common case: nothing is in flight, its place is
        reserved, and of the draw behind it nothing else is asked. None in any other case.
        """
        start = self.num_planned
        if start != self.num_computed or start < self.num_prompt or not self.draws_plainly:
            return None
        views = []
        for table in self.tables:
            if start >= table.next_block * table.block_size:
                return None
            views.append(table.view())
        token_ids = self.token_ids[start:]
        return Chunk(
            self.sequence_id, start, start + 1, tuple(token_ids), tuple(views), False, self.plain_draw
        )

    def append(self, token_ids: tuple[int, ...], eos_ids: frozenset[int]) -> tuple[int, FinishReason | None]:
        """Add drawn tokens up to the one that ends the sequence: how many were added, and why it ends.

        A sequence that may draw nothing ends when its prompt is computed.
        """
        for num_added, token_id in enumerate(token_ids, 1):
            self.token_ids.append(token_id)
            if self.constraint is not None:
                self.constraint.advance(token_id)
            reason = self.finish_reason(eos_ids)
            if reason is not None:
                return num_added, reason
        if not self.request.sampling.max_tokens and self.num_computed == len(self.token_ids):
            return 0, FinishReason.LENGTH
        return len(token_ids), None

    def finish_reason(self, eos_ids: frozenset[int]) -> FinishReason | None:
        """Why the newest token is the last one, or None when it is not.

        A constraint that is complete leaves nothing to draw, whatever else the request asked for.
        """
        if self.constraint is not None and self.constraint.is_complete:
            return FinishReason.STOP
        sampling, num_output_tokens = self.request.sampling, self.num_output_tokens
        is_end = self.token_ids[-1] in self._ending_ids(eos_ids)
        if is_end and num_output_tokens > sampling.min_tokens:
            return FinishReason.STOP
        return FinishReason.LENGTH if num_output_tokens >= sampling.max_tokens else None

    def _ending_ids(self, eos_ids: frozenset[int]) -> frozenset[int]:
        sampling = self.request.sampling
        ending_ids = frozenset() if sampling.ignore_eos else eos_ids
        return ending_ids.union(sampling.stop_token_ids) if sampling.stop_token_ids else ending_ids

    def _draw(self, newest: int, eos_ids: frozenset[int]) -> Draw:
        """The draw of the token at position `newest`, with as much of what comes before as it needs."""
        sampling, num_prompt = self.request.sampling, self.num_prompt
        banned_ids = self._banned_ids(newest - num_prompt, eos_ids)
        if not banned_ids and not sampling.looks_back:
            return self.plain_draw
        start = sampling.history_start(num_prompt, newest)
        return Draw(
            sampling=sampling,
            choice=self.choice,
            is_masked=self.constraint is not None,
            banned_ids=banned_ids,
            history=tuple(self.token_ids[start:newest]),
            num_prompt=max(0, num_prompt - start),
        )

    def _banned_ids(self, num_drawn: int, eos_ids: frozenset[int]) -> tuple[int, ...]:
        """The ends that may not be drawn yet; a constraint would take one that `ignore_eos` passes over."""
        sampling = self.request.sampling
        banned_ids = self._ending_ids(eos_ids) if num_drawn < sampling.min_tokens else frozenset()
        if self.constraint is not None and sampling.ignore_eos:
            banned_ids |= eos_ids
        return tuple(sorted(banned_ids))

    def _with_scores(self, chunk: Chunk) -> Chunk:
        """The chunk, asking for the scores of its positions' successors as far as they are not told.

        The last row of a chunk scores the first token of the next.
        """
        first = max(chunk.start, self.num_scored)
        score_ids = self.request.prompt_ids[first + 1 : chunk.stop + 1]
        if not score_ids:
            return chunk
        num_top = self.request.sampling.prompt_logprobs or 0
        return chunk._replace(score_from=first, score_ids=score_ids, num_score_top=num_top)


def make_sequences(
    request: Request,
    first_sequence_id: int,
    tables: list[tuple[BlockTable, ...]],
    *,
    has_prefix_cache: bool = True,
) -> tuple[Sequence, ...]:
    """One waiting Sequence per choice, the later ones following the first; `tables` has one entry each."""
    block_size = tables[0][0].block_size
    no_cache = PrefixReport(num_matched_tokens=0, block_size=block_size, miss_reason=MissReason.OFF)
    sequences = tuple(
        Sequence(
            sequence_id=first_sequence_id + choice,
            request=request,
            choice=choice,
            tables=own,
            token_ids=list(request.prompt_ids),
            chain=HashChain(block_size, request.cache_salt) if has_prefix_cache else None,
            prefix_report=None if has_prefix_cache else no_cache,
            worst_blocks=tuple(
                min(-(-request.max_total_tokens // block_size), table.ring_blocks) for table in own
            ),
        )
        for choice, own in enumerate(tables)
    )
    leader, *followers = sequences
    if leader.shared_tokens:
        leader.followers = followers
        for follower in followers:
            follower.leader = leader
    return sequences
