import torch

from engine.cache.layout import CacheDemand, plan_layout
from engine.cache.store import CacheStore
from tests.support.specs import small_layout, small_spec


def allocate(*windows):
    layout = small_layout(*windows, num_blocks=16)
    store = CacheStore.allocate(layout, small_spec(*windows), device=torch.device("cpu"), dtype=torch.float32)
    return layout, store


def test_the_store_has_exactly_the_planned_bytes():
    layout, store = allocate(8, 8)
    tensors = {id(t): t for layer in store.layers for t in (layer.keys, layer.values)}

    assert sum(t.nbytes for t in tensors.values()) == layout.num_blocks * layout.block_bytes


def test_an_8_bit_store_has_exactly_the_planned_bytes_too():
    spec = small_spec(8, 8)
    demand = CacheDemand(
        block_size=4, cache_bytes=1 << 16, max_chunk_tokens=4, element_bytes=1, max_context=32, scale_bytes=4
    )
    layout = plan_layout(spec, demand)
    store = CacheStore.allocate(layout, spec, device=torch.device("cpu"), dtype=torch.int8)

    num_bytes = sum(tensor.nbytes for layer in store.layers for tensor in (layer.keys, layer.values))
    assert num_bytes == layout.num_blocks * layout.block_bytes
    assert layout.block_bytes == 4 * 2 * 2 * spec.num_kv_heads * (spec.head_size + 4)


def test_layers_at_the_same_place_of_different_groups_share_memory():
    _, store = allocate(None, 8)

    assert store.layers[0].keys.data_ptr() == store.layers[1].keys.data_ptr()
    assert [layer.group for layer in store.layers] == [0, 1]


def test_layers_of_one_group_do_not_share_memory():
    _, store = allocate(8, 8)

    assert store.layers[0].keys.data_ptr() != store.layers[1].keys.data_ptr()
