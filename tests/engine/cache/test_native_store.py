import ctypes
from itertools import pairwise

import pytest

from engine.cache.layout import CacheDemand, plan_layout
from engine.cache.native_store import HEAD_FORMATS, NativeStore
from tests.support.specs import small_spec


def allocate(*windows, dtype="bfloat16"):
    head, spec = HEAD_FORMATS[dtype], small_spec(*windows)
    demand = CacheDemand(
        block_size=4,
        cache_bytes=1 << 14,
        max_chunk_tokens=4,
        element_bytes=head.element_bytes,
        max_context=32,
        scale_bytes=head.scale_bytes,
    )
    layout = plan_layout(spec, demand)
    return layout, NativeStore.allocate(layout, spec, dtype)


@pytest.mark.parametrize("dtype", HEAD_FORMATS)
def test_the_store_has_exactly_the_planned_bytes_and_all_are_zero(dtype):
    layout, store = allocate(8, 8, dtype=dtype)
    places = {address for place in store.places for address in (place.keys, place.values)}

    part = layout.num_blocks * layout.block_bytes // len(places)
    assert len(places) == 4
    assert part * len(places) == layout.num_blocks * layout.block_bytes
    assert all(ctypes.string_at(address, part) == bytes(part) for address in places)
    assert {place.format for place in store.places} == {HEAD_FORMATS[dtype].code}


def test_no_two_places_overlap():
    layout, store = allocate(8, 8)
    part = layout.num_blocks * layout.block_bytes // 4
    addresses = sorted(address for place in store.places for address in (place.keys, place.values))

    assert all(after - before >= part for before, after in pairwise(addresses))


def test_layers_at_the_same_place_of_different_groups_share_memory():
    _, store = allocate(None, 8)

    assert (store.places[0].keys, store.places[0].values) == (store.places[1].keys, store.places[1].values)
    assert [place.group for place in store.places] == [0, 1]
    assert store.num_groups == 2


def test_layers_of_one_group_do_not_share_memory():
    _, store = allocate(8, 8)

    assert store.places[0].keys != store.places[1].keys
    assert store.num_groups == 1
