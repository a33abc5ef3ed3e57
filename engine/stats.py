"""What is counted and measured, as plain frozen values that cross the border and add up.

Counters count from the start of one engine process; `+` joins those of its predecessors, so that
what is shown never goes back. Gauges tell how things are. This module knows no metric's name and no
format.
"""

from bisect import bisect_left
from dataclasses import dataclass, field, fields
from typing import Self

from engine.prefix_report import NO_LOOKUPS, PrefixCounters

STEP_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
ROW_BOUNDS = tuple(float(1 << power) for power in range(11))
TOKEN_BOUNDS = tuple(float(1 << power) for power in range(15))
LATENCY_BOUNDS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0,
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Histogram:
    """How many values fell between which bounds, each bound belonging to the values below it.

    `counts` has one entry more than `bounds`, for what is above them all; `total` is the sum of all values.

        bounds (1, 2)  values 0.5, 1, 7  ->  counts (2, 0, 1)  total 8.5
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @classmethod
    def empty(cls, bounds: tuple[float, ...]) -> Self:
        """A histogram of no values."""
        return cls(bounds=bounds, counts=(0,) * (len(bounds) + 1))

    @property
    def num_values(self) -> int:
        """How many values there were."""
        return sum(self.counts)

    def __add__(self, other: "Histogram") -> "Histogram":
        assert self.bounds == other.bounds
        counts = tuple(own + more for own, more in zip(self.counts, other.counts, strict=True))
        return Histogram(bounds=self.bounds, counts=counts, total=self.total + other.total)


class Tally:
    """A histogram while values still come in."""

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self._total = 0.0

    def observe(self, value: float, times: int = 1) -> None:
        """Count one value, as many times as it occurred."""
        self._counts[bisect_left(self._bounds, value)] += times
        self._total += value * times

    def to_histogram(self) -> Histogram:
        """All values so far."""
        return Histogram(bounds=self._bounds, counts=tuple(self._counts), total=self._total)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineCounters:
    """What an engine process has done since it started.

    `prefix` is how prompts fared in the prefix cache. `step_s` is from the beginning of a step to the
    end of its computation, `step_rows` and `step_tokens` how many sequences and tokens it computed.
    """

    num_failed_steps: int = 0
    num_preempted: int = 0
    prefix: PrefixCounters = NO_LOOKUPS
    step_s: Histogram = field(default_factory=lambda: Histogram.empty(STEP_BOUNDS_S))
    step_rows: Histogram = field(default_factory=lambda: Histogram.empty(ROW_BOUNDS))
    step_tokens: Histogram = field(default_factory=lambda: Histogram.empty(TOKEN_BOUNDS))

    def __add__(self, other: "EngineCounters") -> "EngineCounters":
        sums = {each.name: getattr(self, each.name) + getattr(other, each.name) for each in fields(self)}
        return EngineCounters(**sums)


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolGauges:
    """The blocks of the pool: free, evictable (known content, no owner) or held, all of them together.

    `max_sequence_blocks` is what the live sequence that holds most holds, over all its rings;
    `sequence_blocks_bound` what no sequence ever exceeds, however long it grows.
    """

    num_blocks: int = 0
    num_free: int = 0
    num_evictable: int = 0
    max_sequence_blocks: int = 0
    sequence_blocks_bound: int = 0

    @property
    def num_held(self) -> int:
        """Blocks that some sequence names."""
        return self.num_blocks - self.num_free - self.num_evictable


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineStats:
    """What an engine process tells of itself at most once a second."""

    counters: EngineCounters = field(default_factory=EngineCounters)
    pool: PoolGauges = field(default_factory=PoolGauges)


@dataclass(frozen=True, slots=True, kw_only=True)
class RingView:
    """One ring of a sequence: the blocks held, oldest first, and where they stand.

    `base` is the first position that the oldest block holds, `length` how many computed positions
    there are from it on, `max_blocks` the M that no ring exceeds.
    """

    window: int | None
    block_ids: tuple[int, ...]
    base: int
    length: int
    max_blocks: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceView:
    """A live sequence as `/stats` tells it. `num_cached` is None until it has begun."""

    sequence_id: int
    request_id: str
    caller: str
    choice: int
    state: str
    priority: int
    num_prompt_tokens: int
    num_tokens: int
    num_computed: int
    num_cached: int | None
    rings: tuple[RingView, ...]

    @property
    def num_blocks(self) -> int:
        """Blocks held, over all rings."""
        return sum(len(ring.block_ids) for ring in self.rings)


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineView:
    """Everything live in an engine process at one moment: running sequences first, then waiting ones."""

    sequences: tuple[SequenceView, ...] = ()
    stats: EngineStats = field(default_factory=EngineStats)
