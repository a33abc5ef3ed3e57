"""Every kernel compiles for the GPU that serves, with the arguments of its launches, on any machine."""

import json
import os
import subprocess
import sys

import pytest

SHARED_BYTES = 227 << 10  # that a block of Hopper may have
KERNELS = {
    "attend_runs",
    "attend_splits",
    "draw_rows",
    "fill_uniforms",
    "gate_rows",
    "join_splits",
    "multiply",
    "norm_rows",
    "rotate_and_write_rows",
    "round_each",
}

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def kernels():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.support.compiled_launches"]
    told = subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout
    return [json.loads(line) for line in told.splitlines()]


def test_every_kernel_compiles(kernels):
    assert {kernel["kernel"] for kernel in kernels} == KERNELS


def test_no_kernel_takes_more_shared_memory_than_there_is(kernels):
    assert max(kernel["shared_bytes"] for kernel in kernels) <= SHARED_BYTES


@pytest.mark.parametrize("name", ["attend_runs", "attend_splits"])
def test_attention_is_multiplied_by_matrix_units_and_loads_ahead(kernels, name):
    own = [kernel for kernel in kernels if kernel["kernel"] == name]

    assert sum(kernel["has_matrix_units"] for kernel in own) >= len(own) - 1, "float32 has no exact ones"
    assert all(kernel["has_pipelined_loads"] for kernel in own)


def test_chunks_are_multiplied_by_the_units_that_take_whole_groups_of_warps(kernels):
    own = [kernel for kernel in kernels if kernel["kernel"] == "attend_runs"]

    assert sum(kernel["has_matrix_groups"] for kernel in own) >= len(own) - 1
