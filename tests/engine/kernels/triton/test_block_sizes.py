import pytest
import torch

from engine.kernels.triton.block_sizes import (
    SHARED_BYTES,
    decode_candidates,
    decode_sizes,
    head_width,
    num_splits,
    power_of_two,
    prefill_candidates,
    prefill_sizes,
    split_tokens,
)

SHAPES = [(group, size) for group in (1, 3, 4, 7, 8, 17) for size in (32, 64, 80, 96, 128, 256)]
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


@pytest.mark.parametrize(("number", "expected"), [(1, 1), (2, 2), (3, 4), (16, 16), (17, 32), (4096, 4096)])
def test_powers_of_two_are_rounded_up(number, expected):
    assert power_of_two(number) == expected


@pytest.mark.parametrize(("size", "width"), [(8, 16), (64, 64), (80, 128), (96, 128), (256, 256)])
def test_heads_are_widened_to_what_the_matrix_units_take(size, width):
    assert head_width(size) == width


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_tiles_fit_into_shared_memory_and_hold_a_group(shape, dtype):
    group, width = shape[0], head_width(shape[1])

    for sizes in (decode_sizes(group, width, dtype), prefill_sizes(group, width, dtype)):
        assert sizes.shared_bytes(width, dtype) <= SHARED_BYTES
        assert sizes.rows >= group
        assert min(sizes.rows, sizes.keys) >= 16


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_what_is_served_with_is_among_what_the_benchmark_tries(shape, dtype):
    group, width = shape[0], head_width(shape[1])

    assert decode_sizes(group, width, dtype) in decode_candidates(group, width, dtype)
    assert prefill_sizes(group, width, dtype) in prefill_candidates(group, width, dtype)


@pytest.mark.parametrize(
    ("most_visible", "size"), [(1, 256), (4096, 256), (8192, 256), (8193, 512), (131_072, 4096)]
)
def test_splits_are_few_however_long_the_context(most_visible, size):
    assert split_tokens(most_visible) == size
    assert num_splits(most_visible, False, size) <= 32


@pytest.mark.parametrize("visible", [1, 2, 255, 256, 257, 258, 513, 4096])
def test_every_split_that_a_window_can_touch_is_counted(visible):
    touched = max((first + visible - 1) // 256 - first // 256 + 1 for first in range(512))

    assert num_splits(visible, True, 256) == touched


@pytest.mark.parametrize("visible", [1, 255, 256, 257, 513, 4096])
def test_without_a_window_keys_begin_with_the_first_split(visible):
    assert num_splits(visible, False, 256) == (visible - 1) // 256 + 1
