"""The machine is described without being named."""

import os

from benchmarks.machine import describe_machine


def test_the_description_tells_processor_cores_and_memory():
    machine = describe_machine()

    assert machine["cores"] == len(os.sched_getaffinity(0))
    assert machine["memory_gb"] > 0
    assert machine["processor"]
