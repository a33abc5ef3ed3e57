import gc
from pathlib import Path

import numpy as np
import pytest

from engine.errors import ConfigError
from engine.kernels.cpu import context
from engine.kernels.cpu.context import KernelContext
from tests.support.native import LEVELS, needs_native

pytestmark = needs_native


def test_the_fastest_level_is_taken_unless_one_is_named():
    assert KernelContext.open(1).level == LEVELS[-1]
    assert KernelContext.open(1, LEVELS[0]).level == LEVELS[0]


def test_a_level_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ConfigError, match=f"no level 'abacus' here; there are {', '.join(LEVELS)}"):
        KernelContext.open(1, "abacus")


def test_kernels_that_were_not_built_are_none(monkeypatch):
    monkeypatch.setattr(context, "library_path", lambda: None)

    assert KernelContext.open(1) is None


def test_only_levels_with_vectors_count_as_such():
    assert not KernelContext.open(1, LEVELS[0]).is_vectorised
    assert KernelContext.open(1).is_vectorised == (len(LEVELS) > 1)


def test_threads_end_with_their_context():
    def num_threads():
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Threads"))

    before = num_threads()
    kernels = KernelContext.open(3)
    during = num_threads()
    del kernels
    gc.collect()

    assert (during - before, num_threads() - before) == (2, 0)  # the caller's is the third


def test_limits_are_measured_with_the_kernels_own_threads():
    read, multiply = KernelContext.open(2).measure_limits(np.zeros(1 << 20, dtype=np.uint8))

    assert read > 1e8
    assert multiply > 1e8
