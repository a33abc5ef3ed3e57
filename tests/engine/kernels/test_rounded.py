import pytest
import torch

from engine.kernels.rounded import MAX_CODE, round_rows, scaled_linear


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_number_is_off_by_at_most_a_sixteenth_of_itself():
    values = draw(40, 64) * torch.logspace(-3, 3, 40)[:, None]
    codes, worth = round_rows(values)
    error = (codes.float() * worth - values).abs()
    is_normal = values.abs() >= worth * 2**-6  # what is nearer to nothing has fewer digits

    assert (error[is_normal] <= values.abs()[is_normal] / 16 * 1.0001).all()
    assert (error <= values.abs().amax(-1, keepdim=True) / 16).all()


def test_the_largest_of_a_row_is_the_largest_code():
    codes, worth = round_rows(draw(7, 32))

    assert codes.float().abs().amax(-1).tolist() == [MAX_CODE] * 7
    assert worth.shape == (7, 1)


def test_a_row_of_nothing_stays_nothing():
    codes, worth = round_rows(torch.zeros(2, 16))

    assert codes.float().tolist() == [[0.0] * 16] * 2
    assert (worth > 0).all()


def test_what_is_rounded_again_stays_as_it_is():
    codes, worth = round_rows(draw(5, 48))
    again, _ = round_rows(codes.float() * worth)

    assert torch.equal(again.float(), codes.float())


@pytest.mark.parametrize("num_rows", [1, 5, 17])
def test_the_product_is_that_of_the_rounded_numbers(num_rows):
    hidden, weight = round_rows(draw(num_rows, 64)), round_rows(draw(48, 64, seed=1))
    bias = draw(48, seed=2).bfloat16()
    expected = (hidden[0].float() * hidden[1]) @ (weight[0].float() * weight[1]).T + bias.float()

    found = scaled_linear(hidden, weight, bias, torch.bfloat16)
    assert found.dtype == torch.bfloat16
    torch.testing.assert_close(found.float(), expected, atol=0.1, rtol=0.02)


def test_a_rounded_product_is_near_the_exact_one():
    hidden, weight = draw(50, 512), draw(256, 512, seed=1)
    found = scaled_linear(round_rows(hidden), round_rows(weight), None, torch.bfloat16).float()
    exact = hidden @ weight.T

    assert (found - exact).norm() / exact.norm() < 0.05
