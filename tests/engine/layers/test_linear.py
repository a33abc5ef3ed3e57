import torch

from engine.kernels.ops import REFERENCE
from engine.layers.linear import DenseLinears

CPU = torch.device("cpu")


def test_several_projections_of_one_input_are_one_weight():
    linears = DenseLinears(REFERENCE.linear, CPU, torch.bfloat16)

    fused = linears("layers.0.attention.qkv", 8, (6, 2, 2), has_bias=True)

    assert fused.weight.shape == (10, 8)
    assert fused.bias is not None
    assert fused.bias.shape == (10,)
    assert {parameter.dtype for parameter in fused.parameters()} == {torch.bfloat16}


def test_projections_are_not_trained():
    fused = DenseLinears(REFERENCE.linear, CPU, torch.float32)("lm_head", 8, (3,), has_bias=True)

    assert not any(parameter.requires_grad for parameter in fused.parameters())


def test_a_projection_computes_through_the_operation_it_was_given():
    seen = []

    def recorded(hidden: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        seen.append((weight.shape, bias))
        return REFERENCE.linear(hidden, weight, bias)

    projection = DenseLinears(recorded, CPU, torch.float32)("lm_head", 4, (3,), has_bias=False)
    torch.nn.init.normal_(projection.weight)
    hidden = torch.randn(2, 4)

    torch.testing.assert_close(projection(hidden), hidden @ projection.weight.T)
    assert seen == [((3, 4), None)]
