from dataclasses import replace

import pytest

from benchmarks.soak import Look, differences

FIRST = Look(
    is_idle=True, num_blocks=34, num_held=0, generation=1, num_failed_steps=0, num_processes=2, num_files=13,
    memory_bytes=400 << 20, answer="turns",
)  # fmt: skip


def test_a_server_as_it_was_is_no_news():
    assert differences(replace(FIRST, memory_bytes=410 << 20, num_files=12), FIRST, 32 << 20) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"is_idle": False}, "sequences are left"),
        ({"num_held": 2}, "2 of 34 blocks are held by nobody"),
        ({"num_failed_steps": 1}, "1 steps failed"),
        ({"generation": 2}, "generation is 2, and was 1"),
        ({"num_processes": 3}, "num_processes is 3, and was 2"),
        ({"answer": "stands"}, "answer is 'stands', and was 'turns'"),
        ({"num_files": 14}, "14 descriptors are open, and there were 13"),
        ({"memory_bytes": 433 << 20}, "memory is 433 MiB, and was 400 MiB"),
    ],
    ids=["sequences", "blocks", "steps", "restart", "processes", "answer", "files", "memory"],
)
def test_what_is_not_as_it_was_is_told(changed, said):
    (line,) = differences(replace(FIRST, **changed), FIRST, 32 << 20)

    assert said in line
