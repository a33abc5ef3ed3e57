import pytest
import torch

from engine.kernels import reference
from engine.kernels.triton.invariant import ROWS, invariant_linear


def draw(place, *shape, seed=0):
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return values.to(place.device, place.dtype)


@pytest.mark.parametrize("num_rows", [1, 2, ROWS - 1, ROWS, ROWS + 1])
@pytest.mark.parametrize(("out_size", "in_size"), [(1, 16), (40, 48), (64, 65), (130, 200)])
@pytest.mark.parametrize("has_bias", [False, True])
def test_the_product_equals_the_reference(place, num_rows, out_size, in_size, has_bias):
    hidden, weight = draw(place, num_rows, in_size) / in_size**0.5, draw(place, out_size, in_size, seed=1)
    bias = draw(place, out_size, seed=2) if has_bias else None
    expected = reference.linear(hidden.double(), weight.double(), None if bias is None else bias.double())

    found = invariant_linear(hidden, weight, bias)
    assert found.dtype == place.dtype
    place.close(found, expected)


def test_a_row_is_multiplied_alike_in_any_company_and_place(place):
    hidden, weight = draw(place, 150, 72), draw(place, 50, 72, seed=1)
    whole = invariant_linear(hidden, weight, None)

    for rows in (slice(0, 1), slice(149, 150), slice(3, 70), slice(63, 66)):
        assert torch.equal(invariant_linear(hidden[rows], weight, None), whole[rows])


def test_rows_may_lie_apart(place):
    wide = draw(place, 5, 100)
    weight = draw(place, 8, 40, seed=1)

    assert torch.equal(
        invariant_linear(wide[:, 20:60], weight, None),
        invariant_linear(wide[:, 20:60].contiguous(), weight, None),
    )


def test_no_rows_give_no_rows(place):
    assert invariant_linear(draw(place, 0, 8), draw(place, 6, 8), None).shape == (0, 6)
