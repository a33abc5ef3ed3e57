"""`LlamaBlock`, the block of Llama and of all families of its lineage, and each family's own.

Sources: Touvron et al. 2023 (arXiv 2307.09288); Jiang et al. 2023, Mistral 7B (arXiv 2310.06825).
"""

from collections.abc import Mapping

from torch import Tensor, nn

from engine.batch import LayerCache
from engine.layers.attention import Attention
from engine.layers.kit import LayerKit
from engine.layers.mlp import GatedMlp
from engine.layers.norm import RMSNorm
from engine.model_spec import ModelSpec
from engine.models.decoder import MakeBlock


class LlamaBlock(nn.Module):
    """Norm, attention, norm, feed-forward, each added to the residual stream by the norm after it."""

    def __init__(self, kit: LayerKit, spec: ModelSpec, layer: int) -> None:
        super().__init__()
        name = f"layers.{layer}"
        self.input_norm = RMSNorm(kit, spec.model_size, spec.norm_eps)
        self.attention = Attention(kit, f"{name}.attention", spec, spec.layer_windows[layer])
        self.mlp_norm = RMSNorm(kit, spec.model_size, spec.norm_eps)
        self.mlp = GatedMlp(kit, f"{name}.mlp", spec.model_size, spec.ffn_size)

    def forward(
        self, hidden: Tensor, residual: Tensor | None, cache: LayerCache, prepared: object
    ) -> tuple[Tensor, Tensor]:
        """(output not yet added, residual stream), each [T, E], to the same of the next layer."""
        hidden, residual = self.input_norm.add(hidden, residual)
        hidden = self.attention(hidden, cache, prepared)
        hidden, residual = self.mlp_norm.add(hidden, residual)
        return self.mlp(hidden), residual


MAKE_BLOCK: Mapping[str, MakeBlock] = {
    "llama": LlamaBlock,
    "mistral": LlamaBlock,
    "qwen2": LlamaBlock,
    "qwen3": LlamaBlock,
}
"""How the layers of each family in `registry.py` are built."""
