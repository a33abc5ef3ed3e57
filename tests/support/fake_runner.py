"""A runner without a model, which watches the cache as it pretends to compute.

It keeps a shadow of every slot, answers each draw with a token that depends on the whole prefix
alone, and raises AssertionError the moment a chunk could read something wrong, or writes where an
uncommitted step may still read.
"""

import hashlib
import math
from dataclasses import dataclass, field

from engine.cache.layout import CacheLayout
from engine.plan import Chunk, StepHandle, StepPlan, StepResult
from engine.token_scores import NO_SCORES, TokenScores
from tests.support.some_scores import some_scores

VOCAB_SIZE = 32


def next_token(prefix: tuple[int, ...], choice: int) -> int:
    """The token after `prefix`: deterministic, and 0 (end of sequence) one time in 32."""
    digest = hashlib.blake2b(bytes([choice, *prefix]), digest_size=2).digest()
    return int.from_bytes(digest, "big") % VOCAB_SIZE


def expected_tokens(prompt: tuple[int, ...], choice: int, max_tokens: int) -> tuple[int, ...]:
    """What a sequence generates, whatever its company."""
    tokens = list(prompt)
    for _ in range(max_tokens):
        tokens.append(next_token(tuple(tokens), choice))
        if tokens[-1] == 0:
            break
    return tuple(tokens[len(prompt) :])


@dataclass(frozen=True)
class FakeStep:
    plan: StepPlan
    result: StepResult
    read_slots: frozenset[tuple[int, int]]


@dataclass
class FakeRunner:
    """Implements `Runner` for sequences whose prompts were told with `expect`."""

    layout: CacheLayout
    tokens: dict[int, list[int]] = field(default_factory=dict)
    shadow: dict[int, tuple[int, tuple[int, ...]]] = field(default_factory=dict)  # slot -> (group, prefix)
    uncommitted: list[FakeStep] = field(default_factory=list)
    last_draws: dict[int, int] = field(default_factory=dict)
    failing_steps: int = 0

    def expect(self, sequence_id: int, prompt: tuple[int, ...]) -> None:
        self.tokens[sequence_id] = list(prompt)

    def begin(self, plan: StepPlan) -> StepHandle:
        if self.failing_steps:
            self.failing_steps -= 1
            raise RuntimeError("planted")
        for chunk in plan.chunks:
            self._learn(chunk)
            self._write(chunk)
        reads = frozenset().union(*(self._read(chunk) for chunk in plan.chunks))
        draws = tuple(self._draw(chunk) for chunk in plan.chunks)
        self.last_draws = {c.sequence_id: d[0] for c, d in zip(plan.chunks, draws, strict=True) if d}
        result = StepResult(
            token_ids=draws,
            logprobs=tuple(some_scores(*[-1.0] * len(d)) for d in draws),
            scores=tuple(self._score(chunk) for chunk in plan.chunks),
        )
        step = FakeStep(plan, result, reads)
        self.uncommitted.append(step)
        return step

    def finish(self, handle: StepHandle) -> StepResult:
        assert handle is self.uncommitted[0], "steps are finished in order"
        return self.uncommitted.pop(0).result

    def _learn(self, chunk: Chunk) -> None:
        """Compare the chunk's ids with what is known, and add what is new."""
        known = self.tokens[chunk.sequence_id]
        ids = list(chunk.token_ids)
        if chunk.takes_last_draw:
            ids.append(self.last_draws[chunk.sequence_id])
        assert len(ids) == chunk.num_tokens > 0
        overlap = known[chunk.start : chunk.stop]
        assert ids[: len(overlap)] == overlap
        assert chunk.start <= len(known)
        known.extend(ids[len(overlap) :])

    def _slot(self, chunk: Chunk, group: int, position: int) -> int:
        table = chunk.tables[group]
        size = self.layout.block_size
        index = position // size - table.first_block
        assert 0 <= index < len(table.block_ids), "position outside the table"
        return table.block_ids[index] * size + position % size

    def _write(self, chunk: Chunk) -> None:
        tokens = self.tokens[chunk.sequence_id]
        for group in range(len(self.layout.groups)):
            slots = [self._slot(chunk, group, position) for position in range(chunk.start, chunk.stop)]
            assert len(set(slots)) == len(slots)
            for position, slot in zip(range(chunk.start, chunk.stop), slots, strict=True):
                content = (group, tuple(tokens[: position + 1]))
                if self.shadow.get(slot) != content:
                    for step in self.uncommitted:
                        assert (group, slot) not in step.read_slots, "written while it may be read"
                self.shadow[slot] = content

    def _read(self, chunk: Chunk) -> set[tuple[int, int]]:
        """Check that each position sees exactly its window, and return the slots that were read."""
        tokens = self.tokens[chunk.sequence_id]
        read = set()
        for group, rules in enumerate(self.layout.groups):
            table = chunk.tables[group]
            assert len(table.block_ids) <= rules.ring_blocks
            window = math.inf if rules.window is None else rules.window
            oldest = int(max(0, chunk.start - window + 1))
            for position in range(oldest, chunk.stop):
                slot = self._slot(chunk, group, position)
                assert self.shadow[slot] == (group, tuple(tokens[: position + 1])), "stale or foreign content"
                read.add((group, slot))
        return read

    def _score(self, chunk: Chunk) -> TokenScores:
        """Minus its id for each token that is to be scored, which must be the successor of its row."""
        if not chunk.score_ids:
            return NO_SCORES
        assert chunk.start <= chunk.score_from
        assert chunk.score_from + len(chunk.score_ids) <= chunk.stop
        first = chunk.score_from + 1
        known = self.tokens[chunk.sequence_id][first : first + len(chunk.score_ids)]
        assert tuple(known) == chunk.score_ids
        return some_scores(*(-float(token_id) for token_id in chunk.score_ids))

    def _draw(self, chunk: Chunk) -> tuple[int, ...]:
        if chunk.draw is None:
            return ()
        self._check_history(chunk)
        return (next_token(tuple(self.tokens[chunk.sequence_id][: chunk.stop]), chunk.draw.choice),)

    def _check_history(self, chunk: Chunk) -> None:
        """A draw that looks back was told the newest tokens, all of them known."""
        assert chunk.draw is not None
        if chunk.draw.sampling.looks_back:
            assert not chunk.takes_last_draw
            tokens = tuple(self.tokens[chunk.sequence_id][: chunk.stop])
            assert chunk.draw.history == tokens[len(tokens) - len(chunk.draw.history) :]
