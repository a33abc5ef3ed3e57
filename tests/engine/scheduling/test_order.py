from dataclasses import replace

from engine.cache.pool import CachePool
from engine.scheduling.order import OUTPUT_WEIGHT, PlaceList, Waiting
from engine.scheduling.sequence import make_sequences
from tests.support.new_request import new_request
from tests.support.specs import small_layout

LAYOUT = small_layout(None)
AGEING_S = 10.0


class Bench:
    """A queue whose sequences come a second apart."""

    def __init__(self):
        self.waiting = Waiting()
        self.next_id = 0

    def add(self, caller="a", *, priority=0, prompt=4):
        request = new_request("x" * prompt, request_id=str(self.next_id))
        request = replace(request, caller=caller, priority=priority)
        (sequence,) = make_sequences(request, self.next_id, [LAYOUT.new_tables()])
        sequence.take_place(float(self.next_id), AGEING_S)
        self.next_id += 1
        self.waiting.add(sequence)
        return sequence

    def admit(self):
        """Whoever is first in turn begins, and its prompt is charged; its number."""
        sequence = next(self.waiting.in_turn())
        self.waiting.begin(sequence)
        self.waiting.remove(sequence)
        self.waiting.charge_prompt(sequence, len(sequence.request.prompt_ids))
        return sequence

    def turns(self):
        """All that wait, as they are admitted: caller and number."""
        admitted = [self.admit() for _ in range(len(self.waiting))]
        return [f"{sequence.request.caller}{sequence.sequence_id}" for sequence in admitted]


def test_one_callers_own_go_by_arrival():
    bench = Bench()
    for _ in range(3):
        bench.add()

    assert bench.turns() == ["a0", "a1", "a2"]


def test_a_point_of_priority_weighs_so_many_seconds():
    bench = Bench()
    for _ in range(10):
        bench.add(priority=1)
    bench.add(priority=0)
    for _ in range(2):
        bench.add(priority=0)

    assert bench.turns()[:4] == ["a0", "a10", "a1", "a11"]


def test_a_thousand_of_one_caller_do_not_delay_another_callers_first():
    bench = Bench()
    for _ in range(1000):
        bench.add("a")
    bench.admit()
    bench.add("b")

    assert bench.turns()[0] == "b1000"


def test_callers_take_turns_by_the_tokens_they_were_served():
    bench = Bench()
    for _ in range(4):
        bench.add("a", prompt=8)
    for _ in range(6):
        bench.add("b", prompt=4)

    assert bench.turns() == ["a0", "b4", "b5", "a1", "b6", "b7", "a2", "b8", "b9", "a3"]


def test_generated_tokens_are_served_tokens_too():
    bench = Bench()
    first, second = bench.add("a"), bench.add("b")
    bench.add("a")
    bench.add("b")
    for _ in range(2):
        bench.admit()
    bench.waiting.charge_output(first, 3)
    bench.waiting.charge_output(second, 2)

    assert bench.turns() == ["b3", "a2"]
    account = bench.waiting._accounts["b"]
    assert account.num_served == 4 + 2 * OUTPUT_WEIGHT + 4


def test_who_comes_back_has_saved_up_nothing():
    bench = Bench()
    bench.add("b")
    bench.admit()
    for _ in range(20):
        bench.add("a")
    for _ in range(10):
        bench.admit()
    for _ in range(3):
        bench.add("b")

    assert bench.turns()[:4] == ["b21", "a11", "b22", "a12"]


def test_a_prompt_is_charged_once_though_it_is_computed_twice():
    bench = Bench()
    sequence = bench.add(prompt=8)
    for planned, stop in ((0, 4), (4, 8), (0, 8), (8, 9)):
        sequence.num_planned = planned
        bench.waiting.charge_prompt(sequence, stop)

    assert bench.waiting._accounts["a"].num_served == 8


def test_a_cached_beginning_costs_its_caller_nothing():
    bench = Bench()
    sequence = bench.add(prompt=8)
    sequence.num_planned = 4
    bench.waiting.charge_prompt(sequence, 8)

    assert bench.waiting._accounts["a"].num_served == 4


def test_who_has_begun_goes_first_by_place():
    bench = Bench()
    bench.add("a")
    later, earlier = bench.add("b"), bench.add("c", priority=-1)
    for sequence in (later, earlier):
        bench.waiting.begin(sequence)

    assert [sequence.sequence_id for sequence in bench.waiting.in_turn()] == [2, 1, 0]


def test_who_is_passed_over_comes_once_and_keeps_its_place():
    bench = Bench()
    for caller in "aabab":
        bench.add(caller)
    once = [sequence.sequence_id for sequence in bench.waiting.in_turn()]

    assert sorted(once) == [0, 1, 2, 3, 4]
    assert [sequence.sequence_id for sequence in bench.waiting.in_turn()] == once


def test_the_youngest_holder_is_the_latest_with_blocks_behind_a_sequence():
    bench = Bench()
    pool = CachePool(LAYOUT)
    first, second, third = (bench.add() for _ in range(3))
    for sequence in (first, second, third):
        bench.waiting.begin(sequence)
    pool.reserve(second.tables, 4)

    assert bench.waiting.youngest_holder(first) is second
    assert bench.waiting.youngest_holder(second) is None


def test_a_place_list_finds_who_leaves_it():
    bench, places = Bench(), PlaceList()
    sequences = [bench.add(priority=priority) for priority in (3, 1, 2)]
    for sequence in sequences:
        places.add(sequence)
    places.remove(sequences[2])

    assert list(places) == [sequences[1], sequences[0]]
    assert list(reversed(places)) == [sequences[0], sequences[1]]
    assert (len(places), places[0]) == (2, sequences[1])
