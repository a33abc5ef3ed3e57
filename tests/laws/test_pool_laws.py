"""Catch-up, conservation, ring, progress and plain plans: the laws of pool and scheduler together."""

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.laws.pool_machine import PoolMachine

PHASES = (Phase.explicit, Phase.reuse, Phase.generate)
COMMON = {"deadline": None, "suppress_health_check": list(HealthCheck), "phases": PHASES}


def test_the_laws_hold_under_random_work():
    run_state_machine_as_test(
        PoolMachine, settings=settings(max_examples=150, stateful_step_count=40, derandomize=True, **COMMON)
    )


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_the_laws_hold_under_much_random_work():
    run_state_machine_as_test(
        PoolMachine, settings=settings(max_examples=5000, stateful_step_count=80, **COMMON)
    )
