"""`NativeStore`: the keys and values of all blocks, as bytes that the native kernels read and write.

It does not know which blocks are in use. Layers at the same place in different cache groups share
their memory, since a block belongs to one group at a time.
"""

import ctypes
from dataclasses import dataclass

from engine.cache.layout import CacheLayout
from engine.kernels.cpu.library import CachePlaces
from engine.kernels.cpu.memory import Bytes, zero_bytes
from engine.model_spec import ModelSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadFormat:
    """How a head's key or value is held: `element_bytes` a number, and `scale_bytes` beside them."""

    code: int  # `rs_cache_format`
    element_bytes: int
    scale_bytes: int


HEAD_FORMATS = {
    "bfloat16": HeadFormat(code=0, element_bytes=2, scale_bytes=0),
    "int8": HeadFormat(code=1, element_bytes=1, scale_bytes=4),
}


class NativeStore:
    """The pool's memory: `num_blocks * block_bytes` bytes, allocated once; `places` has each layer's."""

    def __init__(self, places: "ctypes.Array[CachePlaces]", memory: list[Bytes], num_groups: int) -> None:
        self.places = places
        self.num_groups = num_groups
        self._memory = memory  # that `places` points into

    @classmethod
    def allocate(cls, layout: CacheLayout, spec: ModelSpec, dtype: str) -> "NativeStore":
        """Zeroed memory for `layout`, of heads in `dtype`: zeros, because what is masked still takes part as 0 * value."""
        head = HEAD_FORMATS[dtype]
        head_bytes = spec.head_size * head.element_bytes + head.scale_bytes
        num_bytes = layout.num_blocks * layout.block_size * spec.num_kv_heads * head_bytes
        memory = [zero_bytes(num_bytes) for _ in range(2 * len(layout.groups[0].layers))]
        places = (CachePlaces * spec.num_layers)()
        for index, group in enumerate(layout.groups):
            for place, layer in enumerate(group.layers):
                keys, values = memory[2 * place : 2 * place + 2]
                places[layer] = CachePlaces(
                    keys=keys.ctypes.data, values=values.ctypes.data, group=index, format=head.code
                )
        return cls(places, memory, len(layout.groups))
