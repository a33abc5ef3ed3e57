"""`Lanes`: which row of the tensors that stay on the device belongs to which sequence.

Nobody tells when a sequence ends: the lane used least recently goes to who needs one next.
"""

from collections.abc import Sequence


class Lanes:
    """As many lanes as sequences may run at once."""

    def __init__(self, num_lanes: int) -> None:
        self._num_lanes = num_lanes
        self._by_sequence: dict[int, int] = {}  # in order of last use, the oldest first

    def take(self, sequence_ids: Sequence[int]) -> list[int]:
        """Their lanes, no more of them than there are lanes; whoever had a lane in the last step has it still."""
        known = self._by_sequence
        for sequence_id in sequence_ids:
            lane = known.pop(sequence_id, None)
            if lane is not None:
                known[sequence_id] = lane
        return [
            known[sequence_id] if sequence_id in known else self._new(sequence_id)
            for sequence_id in sequence_ids
        ]

    def _new(self, sequence_id: int) -> int:
        known = self._by_sequence
        lane = len(known)
        if lane >= self._num_lanes:
            lane = known.pop(next(iter(known)))
        known[sequence_id] = lane
        return lane
