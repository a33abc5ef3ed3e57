"""Small ModelSpecs and layouts, for tests that need their numbers and no weights."""

from engine.cache.layout import CacheDemand, CacheLayout, plan_layout
from engine.model_spec import ModelSpec, RopeSpec

BLOCK_BYTES_PER_TOKEN = 2 * 1 * 2 * 4  # keys and values, one head of two float32 numbers


def small_spec(*windows: int | None, max_context: int = 64) -> ModelSpec:
    """One layer per window."""
    return ModelSpec(
        family="llama",
        num_layers=len(windows),
        num_heads=2,
        num_kv_heads=1,
        head_size=2,
        model_size=4,
        ffn_size=8,
        vocab_size=32,
        max_context=max_context,
        norm_eps=1e-6,
        rope=RopeSpec(theta=10_000.0),
        layer_windows=windows,
        eos_ids=(0,),
    )


def small_layout(
    *windows: int | None,
    block_size: int = 4,
    num_blocks: int = 64,
    max_chunk_tokens: int = 8,
    max_context: int = 64,
) -> CacheLayout:
    """A layout of exactly `num_blocks` blocks for layers with these windows."""
    spec = small_spec(*windows, max_context=max_context)
    layers_per_group = len(windows) // len(set(windows)) if len(set(windows)) > 1 else len(windows)
    block_bytes = layers_per_group * block_size * BLOCK_BYTES_PER_TOKEN
    return plan_layout(
        spec,
        CacheDemand(
            block_size=block_size,
            cache_bytes=num_blocks * block_bytes,
            max_chunk_tokens=max_chunk_tokens,
            element_bytes=4,
        ),
    )
