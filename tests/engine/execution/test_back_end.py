from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulingConfig
from engine.execution.back_end import cache_demand


def test_a_cache_has_to_provide_for_what_is_configured():
    config = EngineConfig(
        model=ModelConfig(path="m", model_id="m", max_context=77),
        cache=CacheConfig(block_size=8),
        scheduling=SchedulingConfig(max_chunk_tokens=33),
    )

    demand = cache_demand(config, 1000, 1, 4)

    assert (demand.block_size, demand.max_chunk_tokens, demand.max_context) == (8, 33, 77)
    assert (demand.cache_bytes, demand.element_bytes, demand.scale_bytes) == (1000, 1, 4)
