import torch
from torch.nn import functional

from engine.layers.mlp import GatedMlp
from tests.support.layer_kit import cpu_kit, fill


def test_the_gate_multiplies_what_goes_up_before_it_comes_down():
    mlp = GatedMlp(cpu_kit(), "layers.0.mlp", 8, 12)
    fill(mlp)
    weights = dict(mlp.named_parameters())
    gate, up = weights["gate_up.weight"].chunk(2)
    hidden = torch.randn(3, 8)

    expected = (functional.silu(hidden @ gate.T) * (hidden @ up.T)) @ weights["down.weight"].T
    torch.testing.assert_close(mlp(hidden), expected)
