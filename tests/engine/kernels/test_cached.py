import pytest
import torch

from engine.kernels.cached import from_cached, scale_bytes, to_cached


def heads(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_floating_cache_holds_rounded_numbers(dtype):
    vectors = heads(5, 2, 16)

    assert torch.equal(from_cached(to_cached(vectors, dtype), torch.float32), vectors.to(dtype).float())
    assert scale_bytes(dtype) == 0


def test_an_8_bit_code_is_off_by_half_a_step_of_its_own_head_and_token():
    vectors = heads(5, 2, 16) * torch.logspace(-3, 3, 10).view(5, 2, 1)

    cached = to_cached(vectors, torch.int8)

    error = (from_cached(cached, torch.float32) - vectors).abs()
    assert cached.shape == (5, 2, 16 + scale_bytes(torch.int8))
    assert (error <= vectors.abs().amax(dim=-1, keepdim=True) / 254 * 1.0001).all()


def test_a_head_of_zeros_is_zeros():
    assert not from_cached(to_cached(torch.zeros(1, 1, 8), torch.int8), torch.float32).any()
