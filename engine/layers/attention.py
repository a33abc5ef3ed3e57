"""`Attention`: project, rotate, write keys and values to their slots, attend through the table."""

from torch import Tensor, nn

from engine.batch import LayerCache
from engine.layers.kit import LayerKit
from engine.layers.norm import RMSNorm
from engine.model_spec import ModelSpec


class Attention(nn.Module):
    """Grouped-query attention of one layer; the layer's own window, whatever its cache group's is.

    The whole chunk is written before it attends, so its tokens see each other through the cache.
    Source: Ainslie et al. 2023, GQA (arXiv 2305.13245).
    """

    def __init__(self, kit: LayerKit, name: str, spec: ModelSpec, window: int | None) -> None:
        super().__init__()
        query_size = spec.num_heads * spec.head_size
        kv_size = spec.num_kv_heads * spec.head_size
        self.qkv = kit.linears(
            f"{name}.qkv", spec.model_size, (query_size, kv_size, kv_size), has_bias=spec.has_qkv_bias
        )
        self.output = kit.linears(f"{name}.output", query_size, (spec.model_size,), has_bias=False)
        self.query_norm = RMSNorm(kit, spec.head_size, spec.norm_eps) if spec.has_qk_norm else None
        self.key_norm = RMSNorm(kit, spec.head_size, spec.norm_eps) if spec.has_qk_norm else None
        self._heads = (spec.num_heads, spec.num_kv_heads, spec.num_kv_heads)
        self._head_size = spec.head_size
        self._window = window
        self._rotate_and_write = kit.ops.rotate_and_write
        self._attend = kit.ops.attend

    def forward(self, hidden: Tensor, cache: LayerCache, prepared: object) -> Tensor:
        """[T, E] to [T, E]; writes the step's keys and values into `cache`."""
        heads = self.qkv(hidden).view(-1, sum(self._heads), self._head_size)  # [T, H + 2 K, D]
        query, key, value = heads.split_with_sizes(self._heads, dim=1)
        if self.query_norm is not None and self.key_norm is not None:
            query, key = self.query_norm(query), self.key_norm(key)
        query = self._rotate_and_write(query, key, value, cache, prepared)
        return self.output(self._attend(query, cache, prepared, self._window))
