"""Every native operation at every level against the reference, and against itself in other company."""

import subprocess
import sys

import gguf
import numpy as np
import pytest
import torch

from engine.batch import LayerCache
from engine.kernels import reference
from engine.kernels.cpu.native import NativeKernels
from engine.kernels.cpu.packed import PackedWeights, StoredRows
from tests.support.attention_oracle import brute_force_attention, held_in, in_cache_of, paged_case
from tests.support.native import LEVELS, native_kernels, needs_native, packed_weights
from tests.support.tiny_model import random_blocks

pytestmark = needs_native

FORMATS = ("Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0", "Q4_K", "Q5_K", "Q6_K", "BF16")
ROW_COUNTS = (1, 2, 3, 4, 5, 6, 7, 8, 13, 16, 17, 33, 48, 130, 270, 520)
CODE_STEP = 1 / 2032  # relative to the largest activation of a group
BFLOAT16 = 3e-2
WINDOW = 8


@pytest.fixture(scope="module", params=LEVELS)
def kernels(request):
    return native_kernels(request.param)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 15, 16, 48, 576, 1000])
@pytest.mark.parametrize("has_residual", [False, True])
def test_norm_equals_the_reference(kernels, size, has_residual):
    hidden, weight = draw(5, size), draw(size, seed=1)
    residual = draw(5, size, seed=2) if has_residual else None

    normed, total = kernels.norm_residual(hidden, residual, weight, 1e-5)

    expected = reference.norm_residual(hidden, residual, weight, 1e-5)
    torch.testing.assert_close((normed, total), expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("size", [1, 16, 31, 96, 1536])
def test_the_gate_equals_the_reference(kernels, size):
    gate_up = 8 * draw(3, 2 * size)

    torch.testing.assert_close(kernels.silu_mul(gate_up), reference.silu_mul(gate_up), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("shape", [(1, 256), (17, 256), (32, 512), (70, 768)], ids=str)
@pytest.mark.parametrize("type_name", FORMATS)
def test_a_linear_equals_the_reference_within_the_step_of_its_codes(kernels, type_name, shape):
    blocks = random_blocks(np.random.default_rng(0), shape, type_name)
    weight = torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType[type_name]))
    bias = draw(shape[0], seed=1)
    packed = packed_weights(kernels, torch.from_numpy(blocks.view(np.uint8)), type_name, bias)
    hidden = draw(4, shape[1], seed=2)

    output = kernels.linear(hidden, packed)

    expected = hidden @ weight.T + bias
    step = 2**-8 if type_name == "BF16" or kernels.level == "amx" else CODE_STEP  # bfloat16, or codes
    bound = 4 * step * weight.norm(dim=1).max() * hidden.abs().max()
    if type_name == "Q6_K":
        bound *= 8  # its weights are not held exactly
    assert (output - expected).abs().max() < bound


@pytest.mark.parametrize("type_name", FORMATS)
def test_a_row_of_a_linear_is_the_same_whatever_rows_are_beside_it(kernels, type_name):
    blocks = torch.from_numpy(random_blocks(np.random.default_rng(0), (48, 512), type_name).view(np.uint8))
    packed = packed_weights(kernels, blocks, type_name)
    hidden = draw(max(ROW_COUNTS), 512)
    alone = torch.cat([kernels.linear(hidden[row : row + 1], packed) for row in range(len(hidden))])

    for count in ROW_COUNTS:
        assert torch.equal(kernels.linear(hidden[:count], packed), alone[:count])


@pytest.mark.parametrize("magnitude", [1e-6, 1e-3, 1.0, 3e3])
@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_1", "Q8_0"])
def test_weights_of_any_magnitude_are_as_precise(kernels, type_name, magnitude):
    blocks = gguf.quantize(magnitude * draw(32, 256).numpy(), gguf.GGMLQuantizationType[type_name])
    weight = torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType[type_name]))
    packed = packed_weights(kernels, torch.from_numpy(blocks.view(np.uint8)), type_name)
    hidden = draw(3, 256, seed=2)

    output = kernels.linear(hidden, packed)

    error = (output - hidden @ weight.T).norm() / (hidden @ weight.T).norm()
    assert error < (2**-8 if kernels.level == "amx" else 2 * CODE_STEP)


@pytest.mark.parametrize("rows", [1, 9, 40])
def test_segments_of_different_types_are_computed_as_each_by_itself(kernels, rows):
    sizes = {"Q4_1": 40, "Q8_0": 70, "BF16": 33}
    weights = PackedWeights(kernels.library, 256, tuple(sizes.values()), None)
    hidden, alone, first_row = draw(rows, 256), [], 0
    for type_name, size in sizes.items():
        stored = torch.from_numpy(
            random_blocks(np.random.default_rng(size), (size, 256), type_name).view(np.uint8)
        )
        weights.pack(first_row, StoredRows(type_name=type_name, stored=stored.numpy(), row_order=None))
        alone.append(kernels.linear(hidden, packed_weights(kernels, stored, type_name)))
        first_row += size

    together = kernels.linear(hidden, weights)

    assert torch.equal(together, torch.cat(alone, dim=1))


@pytest.mark.parametrize("rows", [1, 16, 70])
def test_any_number_of_threads_computes_the_same_bits(kernels, rows):
    blocks = torch.from_numpy(
        random_blocks(np.random.default_rng(0), (7 * 32 + 5, 256), "Q4_1").view(np.uint8)
    )
    hidden = draw(rows, 256)
    expected = kernels.linear(hidden, packed_weights(kernels, blocks, "Q4_1"))

    for threads in (1, 2, 3, 5, 11):
        several = NativeKernels.open(threads, kernels.level)
        assert torch.equal(several.linear(hidden, packed_weights(several, blocks, "Q4_1")), expected)


@pytest.mark.parametrize("type_name", ["Q4_0", "Q4_1", "Q8_0"])
def test_an_output_of_large_weights_takes_nothing_from_the_others(kernels, type_name):
    weight = draw(32, 256).numpy()
    weight[5] *= 3e3
    blocks = gguf.quantize(weight, gguf.GGMLQuantizationType[type_name])
    weight = torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType[type_name]))
    hidden = draw(64, 256, seed=2)

    output = kernels.linear(
        hidden, packed_weights(kernels, torch.from_numpy(blocks.view(np.uint8)), type_name)
    )

    expected = hidden @ weight.T
    errors = (output - expected).norm(dim=0) / expected.norm(dim=0)
    assert errors.max() < (2**-8 if kernels.level == "amx" else 2 * CODE_STEP)


@pytest.mark.parametrize(("type_name", "part"), [("Q4_0", 1 / 64), ("Q4_1", 1 / 64), ("Q8_0", 1 / 16)])
@pytest.mark.parametrize("ratio", [1e-1, 1e-2, 1e-3])
def test_small_groups_beside_large_ones_lose_no_more_than_a_part_of_the_largest_scale(
    kernels, type_name, part, ratio
):
    weight = draw(32, 64).numpy()
    weight[:, 32:] *= ratio
    blocks = gguf.quantize(weight, gguf.GGMLQuantizationType[type_name]).view(np.uint8)
    weight = torch.from_numpy(gguf.dequantize(blocks, gguf.GGMLQuantizationType[type_name]))
    scales = torch.from_numpy(blocks.reshape(32, 2, -1)[:, :, :2].copy().view(np.float16).astype(np.float32))

    output = kernels.linear(torch.eye(64), packed_weights(kernels, torch.from_numpy(blocks), type_name))

    lost = part * scales.abs().amax(dim=1)  # of each output
    assert ((output.T - weight).abs() <= 2**-8 * weight.abs() + lost).all()


def test_weights_of_zero_stay_zeros_beside_large_ones(kernels):
    weight = np.zeros((32, 64), dtype=np.float32)
    weight[:, ::32], weight[:, 32:] = -1e-3, 100.0
    blocks = gguf.quantize(weight, gguf.GGMLQuantizationType.Q4_0)
    hidden = torch.ones(1, 64)
    hidden[:, ::32] = hidden[:, 32:] = 0

    output = kernels.linear(hidden, packed_weights(kernels, torch.from_numpy(blocks.view(np.uint8)), "Q4_0"))

    assert torch.equal(output, torch.zeros(1, 32))


def test_another_library_on_the_same_thread_may_use_the_tiles(kernels):
    blocks = torch.from_numpy(random_blocks(np.random.default_rng(0), (48, 256), "Q4_1").view(np.uint8))
    packed = packed_weights(kernels, blocks, "Q4_1")
    hidden, other = draw(16, 256), draw(256, 256).bfloat16()
    alone = kernels.linear(hidden, packed)

    for _ in range(3):
        torch.mm(other, other)  # by oneDNN, on tiles where there are some

        assert torch.equal(kernels.linear(hidden, packed), alone)


def test_rows_of_zeros_stay_zeros(kernels):
    blocks = torch.from_numpy(random_blocks(np.random.default_rng(0), (48, 256), "Q4_1"))

    assert torch.equal(
        kernels.linear(torch.zeros(6, 256), packed_weights(kernels, blocks, "Q4_1")), torch.zeros(6, 48)
    )


@pytest.mark.parametrize("type_name", ["Q4_1", "Q8_0", "BF16"])
def test_embeddings_are_looked_up_exactly(kernels, type_name):
    blocks = torch.from_numpy(random_blocks(np.random.default_rng(0), (50, 256), type_name).view(np.uint8))
    packed = packed_weights(kernels, blocks, type_name)
    token_ids = torch.tensor([49, 0, 7, 7, 31])

    assert torch.equal(kernels.look_up(token_ids, packed), torch.from_numpy(packed.unpacked())[token_ids])


@pytest.mark.parametrize("head_size", [8, 10, 32, 64, 96])
def test_rotation_and_the_cache_equal_the_reference(kernels, head_size):
    case = paged_case([(3, 4), (6, 11)], None, heads=(6, 2, head_size))
    key, value = draw(6, 2, head_size, seed=1), draw(6, 2, head_size, seed=2)
    angles = draw(6, head_size // 2, seed=3)
    cos, sin = angles.cos(), angles.sin()
    theirs, ours = (
        LayerCache(
            group=0, keys=torch.zeros_like(case.cache.keys), values=torch.zeros_like(case.cache.values)
        )
        for _ in range(2)
    )
    ours = LayerCache(group=0, keys=ours.keys.bfloat16(), values=ours.values.bfloat16())

    rotated = kernels.rotate_and_write(case.query, key, value, ours, kernels.prepare(case.batch, cos, sin))

    prepared = reference.prepare(case.batch, cos, sin)
    expected = reference.rotate_and_write(case.query, key, value, theirs, prepared)
    torch.testing.assert_close(rotated, expected, atol=1e-6, rtol=1e-6)
    torch.testing.assert_close(ours.keys.float(), theirs.keys, atol=1e-6, rtol=2**-8)
    assert torch.equal(ours.values, theirs.values.bfloat16())


@pytest.mark.parametrize("head_size", [8, 12, 32, 64, 96])
def test_an_8_bit_cache_is_written_as_the_reference_writes_it(kernels, head_size):
    case = paged_case([(3, 4), (6, 11)], None, heads=(6, 2, head_size))
    key, value = draw(6, 2, head_size, seed=1), draw(6, 2, head_size, seed=2)
    value[2, 1] = 0
    cos, sin = torch.ones(6, head_size // 2), torch.zeros(6, head_size // 2)
    theirs, ours = (in_cache_of(torch.int8, case).cache for _ in range(2))

    kernels.rotate_and_write(case.query, key, value, ours, kernels.prepare(case.batch, cos, sin))

    reference.rotate_and_write(case.query, key, value, theirs, reference.prepare(case.batch, cos, sin))
    slots = case.batch.groups[0].slots
    pairs = ((ours.keys[slots], theirs.keys[slots]), (ours.values[slots], theirs.values[slots]))
    for found, expected in pairs:
        torch.testing.assert_close(
            found[..., -4:].contiguous().view(torch.float32),
            expected[..., -4:].contiguous().view(torch.float32),
        )
        assert (
            found[..., :-4].int() - expected[..., :-4].int()
        ).abs().max() <= 1  # halves may fall either way


@pytest.mark.parametrize("head_size", [8, 10, 32, 64, 96])
@pytest.mark.parametrize("window", [WINDOW, None])
def test_an_8_bit_cache_is_attended_as_what_its_codes_stand_for(kernels, head_size, window):
    case = paged_case([(0, 9), (60, 70), (129, 130)], window, heads=(6, 2, head_size), block_size=4)

    found = attend(kernels, in_cache_of(torch.int8, case), window)

    expected = brute_force_attention(held_in(torch.int8, case), window)
    torch.testing.assert_close(found.double(), expected, atol=BFLOAT16, rtol=BFLOAT16)


def attend(kernels, case, window):
    angles = torch.ones(len(case.query), case.query.shape[-1] // 2)
    prepared = kernels.prepare(case.batch, angles, angles)
    return kernels.attend(case.query.float(), case.cache, prepared, window)


def assert_is_brute_force(kernels, case, window):
    expected = brute_force_attention(case, window)
    torch.testing.assert_close(attend(kernels, case, window).double(), expected, atol=BFLOAT16, rtol=BFLOAT16)


@pytest.mark.parametrize("length", [1, 2, WINDOW, WINDOW + 1, 127, 128, 129, 260])
@pytest.mark.parametrize("window", [1, WINDOW, 128, None])
def test_a_decode_sees_exactly_its_window(kernels, length, window):
    case = paged_case([(length - 1, length)], window, block_size=3, dtype=torch.bfloat16)

    assert_is_brute_force(kernels, case, window)


@pytest.mark.parametrize("span", [(0, 2), (0, 9), (7, 9), (9, 33), (120, 130), (50, 150)], ids=str)
@pytest.mark.parametrize("window", [1, WINDOW - 1, WINDOW, WINDOW + 1, 65, None])
def test_every_row_of_a_chunk_sees_exactly_its_window(kernels, span, window):
    case = paged_case([span], window, block_size=4, dtype=torch.bfloat16)

    assert_is_brute_force(kernels, case, window)


@pytest.mark.parametrize(
    "heads", [(1, 1, 32), (4, 4, 8), (6, 2, 10), (9, 3, 64), (8, 1, 128), (20, 1, 32)], ids=str
)
def test_query_heads_share_key_heads_in_groups(kernels, heads):
    case = paged_case([(4, 5), (126, 130), (0, 1)], None, heads=heads, block_size=16, dtype=torch.bfloat16)

    assert_is_brute_force(kernels, case, None)


@pytest.mark.parametrize("cached", [torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("block_size", [5, 16, 48])
@pytest.mark.parametrize("window", [None, WINDOW, 200])
def test_a_query_is_answered_the_same_alone_and_in_any_chunk_and_block(kernels, window, block_size, cached):
    def random_case(span, block_size):
        case = paged_case([span], None, block_size=block_size, dtype=torch.bfloat16, heads=(6, 2, 64))
        return in_cache_of(cached, case)

    whole = random_case((0, 400), 16)
    rows = attend(kernels, whole, window)

    for position in (0, 1, 31, 63, 64, 127, 128, 290, 399):
        alone = random_case((position, position + 1), block_size)
        slots = whole.batch.groups[0].slots[: position + 1]
        table = alone.batch.groups[0].tables[0]
        own = [int(table[at // block_size]) * block_size + at % block_size for at in range(position + 1)]
        alone.cache.keys[own] = whole.cache.keys[slots]
        alone.cache.values[own] = whole.cache.values[slots]
        alone.query[0] = whole.query[position]

        assert torch.equal(attend(kernels, alone, window)[0], rows[position])


def test_a_long_context_shared_out_between_threads_gives_the_same_bits(kernels):
    case = paged_case([(899, 900), (40, 41)], None, block_size=16, dtype=torch.bfloat16, heads=(9, 3, 64))
    one_thread = NativeKernels.open(1, kernels.level)

    assert torch.equal(attend(kernels, case, None), attend(one_thread, case, None))


@pytest.mark.skipif(sys.platform == "win32", reason="pages are guarded by mprotect")
def test_no_entry_before_a_table_s_first_is_read():
    command = [sys.executable, "-m", "tests.support.guarded_tables"]

    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)

    assert ended.returncode == 0, ended.stderr or f"ended by signal {-ended.returncode}"


def test_levels_agree_within_the_rounding_of_float32_or_of_bfloat16_on_tiles():
    blocks = torch.from_numpy(random_blocks(np.random.default_rng(0), (64, 512), "Q4_1"))
    hidden = draw(7, 512)

    outputs = [
        native_kernels(level).linear(hidden, packed_weights(native_kernels(level), blocks, "Q4_1"))
        for level in LEVELS
    ]

    for level, output in zip(LEVELS, outputs, strict=True):
        atol = 4e-2 if level == "amx" else 1e-4
        torch.testing.assert_close(output, outputs[0], atol=atol, rtol=1e-4)
