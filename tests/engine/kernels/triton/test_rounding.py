import pytest
import torch

from engine.kernels import rounded
from engine.kernels.triton.rounding import round_rows


@pytest.mark.parametrize("size", [16, 48, 576, 4096, 14_336])
def test_codes_and_their_worth_are_those_of_the_reference(place, size):
    values = torch.randn(5, size, generator=torch.Generator().manual_seed(size)).to(place.dtype)
    values[2] = 0.0
    expected, expected_worth = rounded.round_rows(values)

    codes, worth = round_rows(values.to(place.device))
    torch.testing.assert_close(worth.cpu(), expected_worth, rtol=1e-6, atol=0.0)
    # Division and multiplication may round to neighbours of one another.
    assert (codes.cpu().float() != expected.float()).float().mean() < 0.01
    torch.testing.assert_close(codes.cpu().float(), expected.float(), rtol=0.13, atol=0.01)


def test_rows_may_lie_apart_and_there_may_be_none(place):
    wide = torch.randn(4, 64, generator=torch.Generator().manual_seed(0)).to(place.device, place.dtype)

    codes, worth = round_rows(wide[:, 16:48])
    expected = round_rows(wide[:, 16:48].contiguous())
    assert torch.equal(codes.float(), expected[0].float())
    assert torch.equal(worth, expected[1])
    assert round_rows(wide[:0])[0].shape == (0, 64)
