import numpy as np
import pytest

from engine.kernels.cpu.memory import LINE_BYTES, empty_bytes, empty_floats, zero_bytes


@pytest.mark.parametrize("num_bytes", [1, 63, 64, 65, 10_000, 1 << 20])
def test_bytes_begin_where_a_cache_line_does_and_are_as_many_as_asked_for(num_bytes):
    for memory in (empty_bytes(num_bytes), zero_bytes(num_bytes)):
        assert (memory.nbytes, memory.ctypes.data % LINE_BYTES) == (num_bytes, 0)


def test_zeros_are_zero_whatever_was_there_before():
    for _ in range(3):
        memory = zero_bytes(5000)
        assert not memory.any()
        memory.fill(255)


def test_two_pieces_of_memory_share_nothing():
    first, second = zero_bytes(100), zero_bytes(100)
    first.fill(1)

    assert not np.shares_memory(first, second)
    assert not second.any()


@pytest.mark.parametrize("shape", [(1,), (7,), (3, 5), (100, 33)], ids=str)
def test_numbers_begin_there_too_and_have_the_shape_asked_for(shape):
    numbers = empty_floats(*shape)

    assert (numbers.shape, numbers.dtype) == (shape, np.float32)
    assert numbers.ctypes.data % LINE_BYTES == 0
    assert numbers.flags.c_contiguous
