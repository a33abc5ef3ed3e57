import gguf
import pytest
import torch

from engine.quantization.groups import INT4, INT8, GroupFormat

FORMATS = pytest.mark.parametrize("layout", [INT8, INT4], ids=["int8", "int4"])


def drawn(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def dequantised(layout: GroupFormat, blocks: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(gguf.dequantize(blocks.numpy(), gguf.GGMLQuantizationType[layout.type_name]))


def rms(error: torch.Tensor) -> float:
    return error.square().mean().sqrt().item()


@FORMATS
def test_blocks_are_read_by_the_gguf_package_as_the_same_values(layout):
    groups = layout.quantise(drawn(7, 96))

    assert groups.blocks().shape == (7, 3 * layout.block_bytes)
    torch.testing.assert_close(dequantised(layout, groups.blocks()), groups.values(), atol=1e-7, rtol=0)


def test_an_8_bit_code_is_off_by_half_a_step_at_most():
    rows = drawn(16, 64)

    error = (INT8.quantise(rows).values() - rows).abs().unflatten(-1, (-1, 32))

    step = rows.unflatten(-1, (-1, 32)).abs().amax(dim=-1, keepdim=True) / 127
    assert (error <= step * (0.5 + 127 / 2048)).all()  # and the rounding of the step itself to float16


def test_a_4_bit_group_is_closer_than_codes_over_its_whole_range():
    rows = drawn(16, 256)
    plain = gguf.quantize(rows.numpy(), gguf.GGMLQuantizationType.Q4_1)

    error = (INT4.quantise(rows).values() - rows).unflatten(-1, (-1, 32)).square().sum(-1)

    plain_error = (dequantised(INT4, torch.from_numpy(plain)) - rows).unflatten(-1, (-1, 32)).square().sum(-1)
    assert (error <= plain_error * 1.0001).all()
    assert rms(error.sqrt()) < 0.96 * rms(plain_error.sqrt())


def test_what_sixteen_levels_hold_is_found_again():
    codes = torch.randint(0, 16, (8, 2, 32), generator=torch.Generator().manual_seed(1)).float()
    codes[..., 0], codes[..., 1] = 0, 15
    rows = (codes * 0.125 - 1.5).flatten(1)

    assert torch.equal(INT4.quantise(rows).values(), rows)


@FORMATS
@pytest.mark.parametrize("value", [0.0, 0.3, -2.0], ids=str)
def test_a_group_of_equal_values_is_held(layout, value):
    found = layout.quantise(torch.full((2, 64), value)).values()

    torch.testing.assert_close(found, torch.full((2, 64), value), atol=0, rtol=1e-3)


@FORMATS
def test_a_value_that_is_not_finite_shows_in_its_scale(layout):
    rows = drawn(2, 64)
    rows[1, 40] = float("nan")

    assert layout.quantise(rows).scales.isfinite().squeeze(-1).tolist() == [[True, True], [True, False]]
