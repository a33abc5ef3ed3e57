"""`CacheStore`: the keys and values of all blocks, as tensors.

It does not know which blocks are in use. Layers at the same place in different cache groups share
their tensors, since a block belongs to one group at a time.
"""

import torch

from engine.batch import LayerCache
from engine.cache.layout import CacheLayout
from engine.kernels.cached import scale_bytes
from engine.model_spec import ModelSpec


class CacheStore:
    """The pool's memory: `num_blocks * block_bytes` bytes, allocated once."""

    def __init__(self, layers: tuple[LayerCache, ...]) -> None:
        self.layers = layers

    @property
    def device(self) -> torch.device:
        """Where all of it is."""
        return self.layers[0].keys.device

    @classmethod
    def allocate(
        cls,
        layout: CacheLayout,
        spec: ModelSpec,
        *,
        device: torch.device,
        dtype: torch.dtype,
        num_spare_blocks: int = 0,
    ) -> "CacheStore":
        """Zeroed tensors for `layout`: zeros, because what is masked still takes part as 0 * value.

        Spare blocks come after those that the pool knows of, for rows that are computed for nobody.
        """
        width = spec.head_size + scale_bytes(dtype) // dtype.itemsize
        shape = ((layout.num_blocks + num_spare_blocks) * layout.block_size, spec.num_kv_heads, width)
        tensors = [
            (_zeros(shape, device, dtype), _zeros(shape, device, dtype)) for _ in layout.groups[0].layers
        ]
        places = {
            layer: LayerCache(group=index, keys=tensors[place][0], values=tensors[place][1])
            for index, group in enumerate(layout.groups)
            for place, layer in enumerate(group.layers)
        }
        return cls(tuple(places[layer] for layer in range(spec.num_layers)))


def _zeros(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Zeros of any dtype, also of those that torch only knows to move."""
    tensor = torch.empty(shape, device=device, dtype=dtype)
    tensor.view(torch.uint8).zero_()
    return tensor
