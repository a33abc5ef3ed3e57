"""A prompt's logits, computed in chunks through a cache whose table rolls: what a law compares."""

import torch
from torch import Tensor

from engine.cache.layout import CacheDemand, plan_layout
from engine.cache.pool import CachePool
from engine.cache.store import CacheStore
from engine.execution.pack import pack
from engine.kernels.cached import scale_bytes
from engine.models.decoder import Decoder
from engine.plan import Chunk, StepPlan

CHUNK, BLOCK_SIZE = 24, 16


def chunked_logits(
    decoder: Decoder, prompt: list[int], device: torch.device, cache_dtype: torch.dtype | None = None
) -> Tensor:
    """[T, V] float32: of every position, with a cache of the model's dtype unless told otherwise."""
    spec = decoder.spec
    dtype = cache_dtype or decoder.norm.weight.dtype
    demand = CacheDemand(
        block_size=BLOCK_SIZE,
        cache_bytes=8 << 20,
        max_chunk_tokens=CHUNK,
        element_bytes=dtype.itemsize,
        scale_bytes=scale_bytes(dtype),
    )
    layout = plan_layout(spec, demand)
    store = CacheStore.allocate(layout, spec, device=device, dtype=dtype)
    pool, tables = CachePool(layout), layout.new_tables()
    found = []
    for start in range(0, len(prompt), CHUNK):
        stop = min(len(prompt), start + CHUNK)
        pool.roll(tables, start)
        assert pool.reserve(tables, stop)
        chunk = Chunk(
            0, start, stop, tuple(prompt[start:stop]), tuple(table.view() for table in tables),
            score_from=start, score_ids=(0,) * (stop - start),
        )  # fmt: skip
        packed = pack(StepPlan(chunks=(chunk,)), layout, device)
        found.append(decoder.logits(decoder(packed.batch, store.layers)).float())
    return torch.cat(found)
