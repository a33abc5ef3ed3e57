import gguf
import numpy as np
import pytest
import torch

from engine.errors import CheckpointError
from engine.kernels.cpu.packed import PackedWeights, StoredRows
from tests.support.native import LEVELS, native_kernels, needs_native, packed_weights
from tests.support.tiny_model import random_blocks

pytestmark = needs_native

EXACT = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "BF16")
SHAPES = [(1, 256), (15, 256), (16, 512), (17, 256), (33, 768), (64, 256)]


def blocks(type_name, shape):
    return torch.from_numpy(random_blocks(np.random.default_rng(0), shape, type_name).view(np.uint8))


def unpacked(packed):
    return torch.from_numpy(packed.unpacked())


def dequantised(rows, type_name):
    return torch.from_numpy(gguf.dequantize(rows.numpy(), gguf.GGMLQuantizationType[type_name]))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("type_name", EXACT)
def test_a_format_is_held_exactly(type_name, shape):
    rows = blocks(type_name, shape)

    packed = packed_weights(native_kernels(LEVELS[0]), rows, type_name)

    assert torch.equal(unpacked(packed), dequantised(rows, type_name))


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_six_bit_blocks_are_off_by_at_most_half_a_step_of_their_group(shape):
    rows = blocks("Q6_K", shape)

    packed = unpacked(packed_weights(native_kernels(LEVELS[0]), rows, "Q6_K"))

    values = dequantised(rows, "Q6_K")
    groups = values.unflatten(1, (-1, 32))
    half_step = (groups.amax(-1) - groups.amin(-1)) / 510
    error = (packed - values).unflatten(1, (-1, 32)).abs().amax(-1)
    assert bool((error <= half_step * 1.001 + 1e-9).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_dense_weights_are_rounded_to_bfloat16(dtype):
    weight = torch.randn(19, 50, generator=torch.Generator().manual_seed(0)).to(dtype)
    type_name = "F32" if dtype == torch.float32 else "F16"

    packed = packed_weights(native_kernels(LEVELS[0]), weight.view(torch.uint8), type_name)

    assert torch.equal(unpacked(packed), weight.bfloat16().float())


def test_rows_are_taken_in_the_order_that_is_given():
    rows = blocks("Q4_1", (32, 64))
    order = torch.randperm(32, generator=torch.Generator().manual_seed(0)).int()
    packed = PackedWeights(native_kernels(LEVELS[0]).library, 64, (32,), None)
    packed.pack(0, StoredRows(type_name="Q4_1", stored=rows.numpy(), row_order=order.numpy()))

    assert torch.equal(unpacked(packed), dequantised(rows, "Q4_1")[order.long()])


def test_a_projection_may_mix_formats():
    first, second = blocks("Q4_K", (20, 256)), blocks("Q8_0", (12, 256))
    packed = PackedWeights(native_kernels(LEVELS[0]).library, 256, (20, 12), None)
    packed.pack(20, StoredRows(type_name="Q8_0", stored=second.numpy(), row_order=None))
    packed.pack(0, StoredRows(type_name="Q4_K", stored=first.numpy(), row_order=None))

    assert torch.equal(unpacked(packed)[:20], dequantised(first, "Q4_K"))
    assert torch.equal(unpacked(packed)[20:], dequantised(second, "Q8_0"))


@pytest.mark.parametrize("scale", [float("inf"), float("nan")])
@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_1", "Q8_0", "Q4_K"])
def test_scales_that_are_no_numbers_are_refused(type_name, scale):
    rows = blocks(type_name, (64, 256)).clone()
    rows[3, :2] = torch.tensor([scale], dtype=torch.float16).view(torch.uint8)
    packed = PackedWeights(native_kernels(LEVELS[0]).library, 256, (64,), None)

    with pytest.raises(CheckpointError, match="infinite or no number"):
        packed.pack(0, StoredRows(type_name=type_name, stored=rows.numpy(), row_order=None))


def test_four_bits_take_as_much_memory_as_in_the_file_and_a_number_for_each_output():
    rows = blocks("Q4_1", (64, 256))
    packed = PackedWeights(native_kernels(LEVELS[0]).library, 256, (64,), None)

    tiles = packed.pack(0, StoredRows(type_name="Q4_1", stored=rows.numpy(), row_order=None))

    assert tiles.nbytes == rows.nbytes + 4 * len(rows)
