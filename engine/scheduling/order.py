"""In which order sequences run, wait and give way: `PlaceList`, `Account`, `Waiting`.

Two orders, which do not depend on each other:

*Place*, a fixed order of all sequences: by when they came, a point of priority counting for
`priority_ageing_s` seconds. Who is earlier may take blocks from who is later, never the reverse.
Since only sequences that come within a bounded time can ever be earlier than a given one, none is
overtaken for ever: that is the ageing, and it needs no clock but at arrival.

*Turn*, the order of admission. Sequences that have *begun* (they ran before, or hold blocks while
they wait) come first, by place; behind them the callers take turns, and each caller's own go by
place. A caller's turn comes by the tokens it was served, fewest first, so one with a thousand
requests waiting does not delay another's first.
Source: Sheng et al. 2024, Fairness in Serving Large Language Models (arXiv 2401.00588): virtual
token counter; the lift when a caller comes back to the queue, and the weights, are theirs.

Why all of them end. Blocks are held by those that have begun only. Among these, let O have the
earliest place. If O runs, all that others hold is O's to take, and it fits into the pool alone. If O
waits, it is the first in turn, so nobody new is let in; those that run finish or give way, never for
blocks of each other in a circle since they take by place; and then O is admitted. Only finitely many
can ever be earlier than O, so each sequence that has begun becomes O or ends before. When none has,
the pool is free, and whoever is first in turn fits. A caller that waits is served the fewest tokens
sooner or later, since each turn raises the counter of another, and of callers there are as many as keys.
"""

from bisect import bisect_left, insort
from collections.abc import Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heapreplace

from engine.scheduling.sequence import Sequence

PROMPT_WEIGHT = 1
OUTPUT_WEIGHT = 2


class PlaceList:
    """Sequences in order of their places."""

    def __init__(self) -> None:
        self._sequences: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._sequences)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._sequences)

    def __reversed__(self) -> Iterator[Sequence]:
        return reversed(self._sequences)

    def __getitem__(self, index: int) -> Sequence:
        return self._sequences[index]

    def add(self, sequence: Sequence) -> None:
        """Put it in at its place."""
        insort(self._sequences, sequence, key=_place)

    def remove(self, sequence: Sequence) -> None:
        """Take it out; it must be there."""
        index = bisect_left(self._sequences, sequence.place, key=_place)
        assert self._sequences[index] is sequence
        del self._sequences[index]


@dataclass(slots=True, eq=False)
class Account:
    """One caller: what it was served, when it last had its turn, and its sequences that wait to begin."""

    num_served: int = 0
    turn: int = 0
    queue: PlaceList = field(default_factory=PlaceList)


class Waiting:
    """The sequences that wait, and whose turn it is."""

    def __init__(self) -> None:
        self._begun = PlaceList()
        self._accounts: dict[str, Account] = {}
        self._num_new = 0
        self._turn = 0
        self._last = Account()

    def __len__(self) -> int:
        return len(self._begun) + self._num_new

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence, new or preempted."""
        if sequence.has_begun:
            self._begun.add(sequence)
            return
        account = self._accounts.setdefault(sequence.request.caller, Account())
        if not account.queue:
            self._lift(account)
        account.queue.add(sequence)
        self._num_new += 1

    def remove(self, sequence: Sequence) -> None:
        """Take a sequence out."""
        if sequence.has_begun:
            self._begun.remove(sequence)
            return
        self._accounts[sequence.request.caller].queue.remove(sequence)
        self._num_new -= 1

    def begin(self, sequence: Sequence) -> None:
        """It holds blocks now: its caller has had its turn."""
        if not sequence.has_begun:
            self.remove(sequence)
            sequence.has_begun = True
            self._begun.add(sequence)
            self._turn += 1
            self._last = self._accounts[sequence.request.caller]
            self._last.turn = self._turn

    def charge_prompt(self, sequence: Sequence, stop: int) -> None:
        """The positions below `stop` are being computed: put the prompt's on its caller's account, once."""
        stop = min(stop, sequence.num_prompt)
        num_new = stop - max(sequence.num_charged, sequence.num_planned)
        if num_new > 0:
            self._accounts[sequence.request.caller].num_served += PROMPT_WEIGHT * num_new
            sequence.num_charged = stop

    def charge_output(self, sequence: Sequence, num_tokens: int) -> None:
        """Put generated tokens on its caller's account."""
        self._accounts[sequence.request.caller].num_served += OUTPUT_WEIGHT * num_tokens

    def in_turn(self) -> Iterator[Sequence]:
        """All that wait, each once, whose turn it is first. One that is yielded may be removed, no other."""
        yield from tuple(self._begun)
        heap = [
            (account.num_served, account.turn, account.queue[0].place, 0, account)
            for account in self._accounts.values()
            if account.queue
        ]
        heapify(heap)
        while heap:
            *_, index, account = heap[0]
            queue, sequence = account.queue, account.queue[index]
            yield sequence
            index += index < len(queue) and queue[index] is sequence  # it was passed over
            if index < len(queue):
                heapreplace(heap, (account.num_served, account.turn, queue[index].place, index, account))
            else:
                heappop(heap)

    def youngest_holder(self, sequence: Sequence) -> Sequence | None:
        """The one of latest place that waits with blocks, if it is later than `sequence`."""
        for waiting in reversed(self._begun):
            if waiting.place <= sequence.place:
                return None
            if waiting.holds_blocks:
                return waiting
        return None

    def _lift(self, account: Account) -> None:
        """Who comes back to the queue has saved up no turns: it stands where those that wait stand."""
        waiting = [other.num_served for other in self._accounts.values() if other.queue]
        account.num_served = max(account.num_served, min(waiting, default=self._last.num_served))


def _place(sequence: Sequence) -> tuple[float, int]:
    return sequence.place
