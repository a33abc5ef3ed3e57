"""`SchedulingTally`: what the scheduler counts, for others to read."""

from dataclasses import dataclass


@dataclass(slots=True)
class SchedulingTally:
    """Counts since the start of the process.

    `num_preempted` counts running sequences sent back to the queue. Of sequences that begin for the
    first time, `num_prefix_queried_tokens` might have been cached and `num_prefix_hit_tokens` were.
    """

    num_preempted: int = 0
    num_prefix_queried_tokens: int = 0
    num_prefix_hit_tokens: int = 0
