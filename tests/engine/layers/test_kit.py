import torch

from engine.layers.linear import Linear
from tests.support.layer_kit import cpu_kit


def test_a_kits_parameter_has_its_dtype_and_no_gradient():
    parameter = cpu_kit(torch.float64).parameter(3, 5)

    assert parameter.shape == (3, 5)
    assert parameter.dtype == torch.float64
    assert not parameter.requires_grad


def test_a_dense_kit_makes_plain_matrices_of_its_dtype():
    projection = cpu_kit(torch.bfloat16).linears("lm_head", 4, (3, 2), has_bias=False)

    assert isinstance(projection, Linear)
    assert (projection.weight.shape, projection.weight.dtype) == ((5, 4), torch.bfloat16)
