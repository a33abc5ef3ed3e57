"""`RMSNorm`, with or without the residual stream."""

from torch import Tensor, nn

from engine.layers.kit import LayerKit


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps) · weight over the last dimension."""

    def __init__(self, kit: LayerKit, size: int, eps: float) -> None:
        super().__init__()
        self.weight = kit.parameter(size)
        self._eps = eps
        self._norm_residual = kit.ops.norm_residual

    def forward(self, hidden: Tensor) -> Tensor:
        """The norm alone; the shape stays."""
        return self._norm_residual(hidden, None, self.weight, self._eps)[0]

    def add(self, hidden: Tensor, residual: Tensor | None) -> tuple[Tensor, Tensor]:
        """(norm of the sum, the sum): the sum is the residual stream from here on."""
        return self._norm_residual(hidden, residual, self.weight, self._eps)
