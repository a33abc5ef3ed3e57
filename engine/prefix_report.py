"""What the prefix cache found for a prompt, and why no more: `PrefixReport`, and sums in `PrefixCounters`.

Frozen values that cross the border as they are; they know neither pool nor HTTP.
"""

from dataclasses import dataclass
from enum import StrEnum
from operator import add
from typing import NamedTuple


class MissReason(StrEnum):
    """Why a prompt was not found further than it was.

    `NEVER_SEEN`: nothing began like it. `SALTED`: the same, under the prompt's cache salt; whether
    others have it cached is not told, since that is what a salt keeps. `DIFFERS`: what was seen
    before went on otherwise. `EVICTED`: it was cached, and its block was needed for something else.
    `TOO_SHORT`: it has no full block short of its last token. `SCORED`: its log-probabilities were
    asked for, so it is computed. `OFF`: there is no prefix cache.
    """

    NEVER_SEEN = "never_seen"
    SALTED = "salted"
    DIFFERS = "differs"
    EVICTED = "evicted"
    TOO_SHORT = "too_short"
    SCORED = "scored"
    OFF = "off"


@dataclass(frozen=True, slots=True, kw_only=True)
class PrefixReport:
    """How a prompt fared when it was looked up, which happens once, when it is first scheduled.

    `num_matched_tokens` positions were cached; the next block, number `first_missing_block`, was
    not, for `miss_reason`. Both are None where every full block short of the last token was found;
    the number is None too where no block was looked for. `evicted_s_ago` is None unless evicted.
    """

    num_matched_tokens: int
    block_size: int
    miss_reason: MissReason | None = None
    first_missing_block: int | None = None
    evicted_s_ago: float | None = None


class PrefixCounters(NamedTuple):
    """Sums since the engine process started; each lookup counts under `num_complete` or one reason.

    `num_hits` counts lookups that matched anything, complete or not, `num_tokens` the prompts'
    tokens and `num_cached_tokens` those found. `num_evicted_blocks` were taken for something else
    while their content was known, `num_cleared_blocks` were forgotten on demand.
    """

    num_lookups: int = 0
    num_hits: int = 0
    num_complete: int = 0
    num_never_seen: int = 0
    num_salted: int = 0
    num_differs: int = 0
    num_evicted: int = 0
    num_too_short: int = 0
    num_scored: int = 0
    num_tokens: int = 0
    num_cached_tokens: int = 0
    num_evicted_blocks: int = 0
    num_cleared_blocks: int = 0

    def __add__(self, other: "PrefixCounters") -> "PrefixCounters":  # type: ignore[override]  # sums, not a longer tuple
        return PrefixCounters(*map(add, self, other))

    @property
    def num_by_result(self) -> dict[str, int]:
        """Lookups by how they came out: `complete`, or why not."""
        return {
            "complete": self.num_complete,
            **{
                reason.value: getattr(self, f"num_{reason}")
                for reason in MissReason
                if reason is not MissReason.OFF
            },
        }


NO_LOOKUPS = PrefixCounters()
