"""The limits against the figures that the design names for Mistral-7B on one H100."""

import pytest

from benchmarks.on_gpu.limits import Costs
from benchmarks.on_gpu.shapes import mistral_7b

COSTS = Costs(spec=mistral_7b())


def test_the_shape_has_the_published_number_of_parameters():
    looked_up = 32_000 * 4096

    assert COSTS.num_computed_parameters + looked_up == pytest.approx(7.24e9, rel=0.01)
    assert COSTS.token_bytes == 131_072


def test_decode_limits_are_those_of_the_design():
    assert COSTS.decode_rate(1, 1000) == pytest.approx(209, rel=0.01)
    assert COSTS.decode_rate(32, 1000) == pytest.approx(5185, rel=0.01)


def test_8_bit_weights_halve_what_is_read():
    assert Costs(spec=mistral_7b(), weight_itemsize=1.0).decode_rate(1, 1000) == pytest.approx(410, rel=0.02)


def test_a_first_token_of_2048_takes_at_least_38_ms():
    assert COSTS.prefill_s(2048) == pytest.approx(0.038, rel=0.03)


def test_a_window_bounds_what_is_seen():
    assert COSTS.visible(9000) == 4096
    assert COSTS.mean_visible(4096) == 2048.5
    assert 3000 < COSTS.mean_visible(8192) < 4096


def test_a_saturated_rate_lies_below_that_of_decoding_alone():
    rate = COSTS.saturated_rate(256, 1000, 1000)

    assert rate == pytest.approx(10_100, rel=0.1)
    assert rate < COSTS.decode_rate(256, 1500)
