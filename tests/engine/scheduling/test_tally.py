from dataclasses import asdict

from engine.scheduling.tally import SchedulingTally


def test_every_count_begins_at_zero():
    assert set(asdict(SchedulingTally()).values()) == {0}
