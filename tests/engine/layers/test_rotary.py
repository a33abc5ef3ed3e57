import math

import pytest
import torch

from engine.layers.rotary import Rotary, inverse_frequencies
from engine.model_spec import RopeSpec
from tests.support.tiny_model import ROPE_LLAMA3

HEAD_SIZE = 16
CPU = torch.device("cpu")


def test_frequencies_fall_geometrically_from_one():
    frequencies = inverse_frequencies(RopeSpec(theta=10_000.0), 8)

    torch.testing.assert_close(frequencies, torch.tensor([1.0, 0.1, 0.01, 0.001]))


def test_linear_scaling_slows_every_frequency():
    plain = inverse_frequencies(RopeSpec(theta=10_000.0), HEAD_SIZE)

    scaled = inverse_frequencies(RopeSpec(theta=10_000.0, scaling="linear", factor=4.0), HEAD_SIZE)

    torch.testing.assert_close(scaled * 4, plain)


def test_stated_factors_divide_frequency_by_frequency():
    factors = tuple(float(1 + index) for index in range(HEAD_SIZE // 2))
    plain = inverse_frequencies(RopeSpec(theta=10_000.0), HEAD_SIZE)

    scaled = inverse_frequencies(
        RopeSpec(theta=10_000.0, scaling="factors", frequency_factors=factors), HEAD_SIZE
    )

    torch.testing.assert_close(scaled, plain / torch.tensor(factors))


@pytest.mark.parametrize("head_size", [16, 64, 128])
@pytest.mark.parametrize("original", [64, 8192])
def test_llama3_scaling_is_that_of_transformers(head_size, original):
    import transformers
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    parameters = {**ROPE_LLAMA3, "original_max_position_embeddings": original}
    config = transformers.LlamaConfig(head_dim=head_size, rope_parameters=parameters)
    expected, _ = ROPE_INIT_FUNCTIONS["llama3"](config)

    frequencies = inverse_frequencies(
        RopeSpec(
            theta=10_000.0,
            scaling="llama3",
            factor=4.0,
            low_freq_factor=1.0,
            high_freq_factor=4.0,
            original_max_context=original,
        ),
        head_size,
    )

    torch.testing.assert_close(frequencies, expected, rtol=1e-6, atol=0)


def test_llama3_scaling_keeps_short_waves_and_stretches_long_ones():
    rope = RopeSpec(theta=10_000.0, scaling="llama3", factor=8.0, original_max_context=1024)
    plain = inverse_frequencies(RopeSpec(theta=10_000.0), 64)

    scaled = inverse_frequencies(rope, 64)

    assert scaled[0] == plain[0]
    torch.testing.assert_close(scaled[-1], plain[-1] / 8)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
def test_angles_are_those_of_absolute_positions_in_the_models_dtype(dtype):
    rotary = Rotary(RopeSpec(theta=10_000.0), 4, CPU, dtype)

    cos, sin = rotary.angles(torch.tensor([0, 100]))

    assert cos.dtype == sin.dtype == dtype
    expected = torch.tensor([[1.0, 1.0], [math.cos(100.0), math.cos(1.0)]])
    torch.testing.assert_close(cos.float(), expected, atol=4e-3, rtol=0)
    assert sin[0].tolist() == [0.0, 0.0]
