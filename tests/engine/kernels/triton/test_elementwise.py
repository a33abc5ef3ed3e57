import pytest
import torch

from engine.kernels import reference
from engine.kernels.triton.kernels import TritonKernels


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [1, 15, 16, 48, 576, 1000, 4096])
@pytest.mark.parametrize("has_residual", [False, True])
def test_norm_equals_the_reference(place, size, has_residual):
    hidden, weight = draw(5, size).to(place.dtype), draw(size, seed=1).to(place.dtype)
    residual = draw(5, size, seed=2).to(place.dtype) if has_residual else None

    normed, total = TritonKernels().norm_residual(
        hidden.to(place.device),
        None if residual is None else residual.to(place.device),
        weight.to(place.device),
        1e-5,
    )

    expected = reference.norm_residual(hidden, residual, weight, 1e-5)
    place.close(normed, expected[0])
    assert torch.equal(total.cpu(), expected[1])


def test_heads_of_a_projection_are_normed_where_they_lie(place):
    heads = draw(5, 7, 24).to(place.device, place.dtype)
    query, weight = heads[:, 2:6], draw(24, seed=1).to(place.device, place.dtype)

    normed, _ = TritonKernels().norm_residual(query, None, weight, 1e-5)

    place.close(normed, reference.norm_residual(query, None, weight, 1e-5)[0])
    assert normed.is_contiguous()


def test_a_row_is_normed_alike_in_any_company(place):
    hidden, weight = draw(9, 80).to(place.device, place.dtype), draw(80).to(place.device, place.dtype)
    kernels = TritonKernels()

    together, _ = kernels.norm_residual(hidden, hidden, weight, 1e-5)

    for row in range(len(hidden)):
        alone = hidden[row : row + 1]
        assert torch.equal(kernels.norm_residual(alone, alone, weight, 1e-5)[0][0], together[row])


def test_the_square_of_a_float16_does_not_overflow_in_the_norm(place):
    hidden = torch.full((1, 16), 1000.0, dtype=torch.float16, device=place.device)
    weight = torch.ones(16, dtype=torch.float16, device=place.device)

    normed, _ = TritonKernels().norm_residual(hidden, None, weight, 1e-6)

    assert normed.tolist() == [[1.0] * 16]


@pytest.mark.parametrize("size", [1, 16, 31, 96, 1536])
def test_the_gate_equals_the_reference(place, size):
    gate_up = (8 * draw(3, 2 * size)).to(place.dtype)

    place.close(TritonKernels().silu_mul(gate_up.to(place.device)), reference.silu_mul(gate_up))


def test_a_step_of_no_rows_is_nothing_to_do(place):
    nothing = torch.zeros(0, 16, device=place.device, dtype=place.dtype)
    kernels = TritonKernels()

    assert kernels.silu_mul(nothing).shape == (0, 8)
    assert kernels.norm_residual(nothing, nothing, nothing.new_ones(16), 1e-5)[0].shape == (0, 16)
