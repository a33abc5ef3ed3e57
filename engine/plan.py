"""One step as plain data: `StepPlan` in, `StepResult` out, and `Runner`, the protocol between them.

Plans and results are printable, picklable and replayable. They hold no tensors, and nothing here
knows who made the plan or what computes it. What a step has one of for every sequence is a named
tuple, made in a quarter of the time of a frozen dataclass.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from engine.request import SamplingParams
from engine.token_scores import TokenScores


class ChunkTable(NamedTuple):
    """The blocks of one cache group that a chunk reads and writes: the ring, rotated.

    Consecutive block numbers from `first_block` on, oldest first, so position p lies in slot

        block_ids[p // B - first_block] * B + p % B
    """

    first_block: int
    block_ids: tuple[int, ...]


class Draw(NamedTuple):
    """Sample one token from the chunk's last row.

    The random numbers are a function of seed, choice and the new token's position alone.
    `banned_ids` may not be drawn this time, and where it `is_masked`, only what the mask of its sequence
    allows; whoever computes the plan is given those masks. `history` is empty unless the draw depends on the tokens
    before: then it is as many of the newest ones as it needs, of which the first `num_prompt` belong
    to the prompt.
    """

    sampling: SamplingParams
    choice: int
    is_masked: bool = False
    banned_ids: tuple[int, ...] = ()
    history: tuple[int, ...] = ()
    num_prompt: int = 0


class Chunk(NamedTuple):
    """Positions [start, stop) of one sequence, to be computed in this step.

    `token_ids` are their ids. With look-ahead the last one may not be known yet: then
    `takes_last_draw` is set, `token_ids` is one shorter, and the runner puts in the token that the
    step before drew for this sequence. `tables` holds one entry per cache group. `draw` is None
    while the prompt is not complete. `score_ids` asks for log-probabilities: entry i is the token
    that is to be scored by the row of position `score_from + i`, as that row's successor;
    `num_score_top` alternatives come with each.
    """

    sequence_id: int
    start: int
    stop: int
    token_ids: tuple[int, ...]
    tables: tuple[ChunkTable, ...]
    takes_last_draw: bool = False
    draw: Draw | None = None
    score_from: int = 0
    score_ids: tuple[int, ...] = ()
    num_score_top: int = 0

    @property
    def num_tokens(self) -> int:
        """How much of the token budget the chunk takes."""
        return self.stop - self.start


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPlan:
    """One step's work; empty when there is nothing to compute."""

    chunks: tuple[Chunk, ...] = ()

    @property
    def num_tokens(self) -> int:
        """Tokens computed in this step."""
        return sum(chunk.num_tokens for chunk in self.chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepResult:
    """What a step found, one entry per chunk of its plan, in the plan's order.

    `token_ids[i]` are the drawn tokens of chunk i (none without a `draw`, one with it, several
    with speculation); `logprobs[i]` how probable they were, empty unless asked for; `scores[i]` the
    same of the chunk's `score_ids`, in their order.
    """

    token_ids: tuple[tuple[int, ...], ...] = ()
    logprobs: tuple[TokenScores, ...] = ()
    scores: tuple[TokenScores, ...] = ()


class StepHandle(Protocol):
    """A step that has been begun; only the runner that made it can finish it."""

    @property
    def plan(self) -> StepPlan:
        """The plan under execution."""
        ...


class Runner(Protocol):
    """Computes steps. Steps are finished in the order in which they were begun."""

    def begin(self, plan: StepPlan) -> StepHandle:
        """Start to compute `plan`; returns without waiting for the device."""
        ...

    def finish(self, handle: StepHandle) -> StepResult:
        """Wait for the step and return what it found; any exception means that the step failed."""
        ...
