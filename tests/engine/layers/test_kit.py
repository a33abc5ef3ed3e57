import torch

from tests.support.layer_kit import cpu_kit


def test_a_kits_parameter_has_its_dtype_and_no_gradient():
    parameter = cpu_kit(torch.float64).parameter(3, 5)

    assert parameter.shape == (3, 5)
    assert parameter.dtype == torch.float64
    assert not parameter.requires_grad
