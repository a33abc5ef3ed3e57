"""The answer of GET /stats: the engine's state, its pool, and every live sequence with its rings."""

from pydantic import BaseModel, Field

from server.schemas.common import HealthReport


class PoolReport(BaseModel):
    """The blocks of the pool. `sequence_blocks_bound` is what no sequence ever exceeds."""

    num_blocks: int
    num_free: int
    num_evictable: int
    num_held: int
    max_sequence_blocks: int
    sequence_blocks_bound: int


class PrefixFigures(BaseModel):
    """The prefix cache since the server started; `hit_rate` is null before the first lookup.

    `lookups` counts prompts by result: `complete`, or why no more of them was found.
    """

    queried_tokens: int
    hit_tokens: int
    hit_rate: float | None
    lookups: dict[str, int]
    num_evicted_blocks: int
    num_cleared_blocks: int


class RingReport(BaseModel):
    """One ring of a sequence: its blocks, oldest first, from position `base` on."""

    window: int | None
    entries: list[int]
    base: int
    length: int
    max_entries: int


class CallerReport(BaseModel):
    """How many sequences of one caller are live."""

    num_running: int
    num_waiting: int


class SequenceReport(BaseModel):
    """A sequence that runs or waits. `age_s` is null where its request has ended meanwhile."""

    sequence_id: int
    request_id: str
    caller: str
    choice: int
    state: str
    priority: int
    age_s: float | None
    num_prompt_tokens: int
    num_tokens: int
    num_computed: int
    num_cached: int | None
    num_blocks: int
    rings: list[RingReport]


class StatsReport(BaseModel):
    """Everything that is under way.

    `is_live` says whether the engine's loop answered; if it did not, `detail` says what is known instead,
    `sequences` is empty and `pool` is as it was last told.
    """

    engine: HealthReport
    engine_pid: int | None
    silent_s: float | None = Field(description="Seconds since the engine's loop was heard of.")
    is_live: bool
    detail: str
    num_preempted: int
    num_failed_steps: int
    num_steps: int
    pool: PoolReport
    prefix_cache: PrefixFigures
    open_requests: dict[str, float] = Field(description="Age in seconds of each open request, by its id.")
    callers: dict[str, CallerReport] = Field(description="By the caller's name: a digest of its key.")
    sequences: list[SequenceReport]
