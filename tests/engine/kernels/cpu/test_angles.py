from dataclasses import replace

import numpy as np
import pytest
import torch

from engine.kernels.cpu.angles import angle_tables, inverse_frequencies
from engine.layers import rotary
from engine.model_spec import RopeSpec

HEAD_SIZE = 64
ROPES = {
    "plain": RopeSpec(theta=10_000.0),
    "large theta": RopeSpec(theta=1_000_000.0),
    "linear": RopeSpec(theta=10_000.0, scaling="linear", factor=4.0),
    "llama3": RopeSpec(theta=500_000.0, scaling="llama3", factor=8.0, original_max_context=1024),
    "factors": RopeSpec(
        theta=10_000.0, scaling="factors", frequency_factors=tuple(1.0 + i / 7 for i in range(HEAD_SIZE // 2))
    ),
}
ULP = 2.0**-23


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_frequencies_are_torchs_but_for_rounding(rope):
    expected = rotary.inverse_frequencies(rope, HEAD_SIZE).numpy()

    found = inverse_frequencies(rope, HEAD_SIZE)

    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=4 * ULP)


@pytest.mark.parametrize("head_size", [64, 80, 128])
@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_frequencies_are_rounded_at_each_step_where_torch_rounds_them(rope, head_size):
    rope = replace(rope, frequency_factors=rope.frequency_factors and (1.5,) * (head_size // 2))
    expected = rotary.inverse_frequencies(rope, head_size).numpy()

    found = inverse_frequencies(rope, head_size)

    assert np.mean(found == expected) > 0.9  # not all: torch's power is itself off by one in the last place


@pytest.mark.parametrize("rope", ROPES.values(), ids=ROPES)
def test_tables_have_cosines_and_sines_of_positions_from_zero_on(rope):
    cos, sin = angle_tables(rope, HEAD_SIZE, 3000)

    rotation = rotary.Rotary(rope, HEAD_SIZE, torch.device("cpu"), torch.float32)
    expected_cos, expected_sin = rotation.angles(torch.arange(3000))
    assert cos.dtype == sin.dtype == np.float32
    # A frequency off by rounding turns position p by p times as much.
    np.testing.assert_allclose(cos, expected_cos.numpy(), atol=3000 * 4 * ULP)
    np.testing.assert_allclose(sin, expected_sin.numpy(), atol=3000 * 4 * ULP)


def test_position_zero_is_not_turned():
    cos, sin = angle_tables(ROPES["plain"], 4, 2)

    assert (cos[0].tolist(), sin[0].tolist()) == ([1.0, 1.0], [0.0, 0.0])
    np.testing.assert_allclose(cos[1], np.cos([1.0, 0.01]), rtol=1e-6)
