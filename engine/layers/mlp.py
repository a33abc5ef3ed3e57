"""`GatedMlp`: the feed-forward layer of the Llama lineage."""

from torch import Tensor, nn

from engine.layers.kit import LayerKit


class GatedMlp(nn.Module):
    """down(silu(gate(x)) · up(x)), gate and up computed as one projection.

    Source: Shazeer 2020, GLU Variants Improve Transformer (arXiv 2002.05202).
    """

    def __init__(self, kit: LayerKit, name: str, model_size: int, ffn_size: int) -> None:
        super().__init__()
        self.gate_up = kit.linears(f"{name}.gate_up", model_size, (ffn_size, ffn_size), has_bias=False)
        self.down = kit.linears(f"{name}.down", ffn_size, (model_size,), has_bias=False)
        self._silu_mul = kit.ops.silu_mul

    def forward(self, hidden: Tensor) -> Tensor:
        """[T, E] to [T, E]."""
        return self.down(self._silu_mul(self.gate_up(hidden)))
