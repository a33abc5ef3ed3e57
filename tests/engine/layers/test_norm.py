import torch

from engine.layers.norm import RMSNorm
from tests.support.layer_kit import cpu_kit, fill


def test_the_norm_of_a_row_has_unit_mean_square_before_its_weight():
    norm = RMSNorm(cpu_kit(), 16, 1e-6)
    norm.weight.fill_(1.0)

    normed = norm(7 * torch.randn(4, 16))

    torch.testing.assert_close(normed.square().mean(-1), torch.ones(4))


def test_adding_hands_on_the_sum_and_its_norm():
    norm = RMSNorm(cpu_kit(), 16, 1e-6)
    fill(norm)
    hidden, residual = torch.randn(4, 16), torch.randn(4, 16)

    normed, total = norm.add(hidden, residual)

    torch.testing.assert_close(total, hidden + residual)
    torch.testing.assert_close(normed, norm(hidden + residual))
