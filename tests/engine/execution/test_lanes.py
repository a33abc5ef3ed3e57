from hypothesis import given, settings
from hypothesis import strategies as st

from engine.execution.lanes import Lanes


def test_a_sequence_keeps_its_lane():
    lanes = Lanes(3)

    assert lanes.take([10, 11]) == [0, 1]
    assert lanes.take([11, 12, 10]) == [1, 2, 0]


def test_the_lane_used_least_recently_goes_to_who_needs_one():
    lanes = Lanes(2)
    lanes.take([10, 11])
    lanes.take([10])

    assert lanes.take([12, 10]) == [1, 0]


@settings(derandomize=True)
@given(st.lists(st.sets(st.integers(0, 12), max_size=4), max_size=30))
def test_nobody_shares_a_lane_and_nobody_loses_one_from_one_step_to_the_next(steps):
    lanes = Lanes(4)
    before = {}
    for step in steps:
        now = dict(zip(sorted(step), lanes.take(sorted(step)), strict=True))

        assert sorted(set(now.values())) == sorted(now.values())
        assert set(now.values()) <= set(range(4))
        assert all(now[key] == before[key] for key in now.keys() & before.keys())
        before = now
