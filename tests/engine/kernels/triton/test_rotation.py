import dataclasses

import pytest
import torch

from engine.batch import LayerCache
from engine.kernels import reference
from engine.kernels.cached import from_cached
from engine.kernels.triton.kernels import TritonKernels
from tests.support.attention_oracle import in_cache_of, paged_case
from tests.support.triton_device import CPU, placed

CACHED = [torch.float32, torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn]
# What the interpreter makes of bfloat16 it cuts off instead of rounding.
STEPS = {
    torch.float32: 1e-5,
    torch.float16: 2**-10,
    torch.bfloat16: 2**-7,
    torch.int8: 1e-5,
    torch.float8_e4m3fn: 1e-5,
}


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def step_of(place, heads, cached):
    """(case, key, value, angles) of four tokens of two chunks, in the place's dtype."""
    case = in_cache_of(cached, paged_case([(3, 4), (6, 9)], None, heads=heads, dtype=place.dtype))
    key, value = draw(4, *heads[1:], seed=1).to(place.dtype), draw(4, *heads[1:], seed=2).to(place.dtype)
    angles = draw(4, heads[2] // 2, seed=3)
    return case, key, value, angles


def written(place, case, key, value, angles):
    """(rotated query, cache) by the kernels."""
    own = placed(case, place.device)
    own = dataclasses.replace(
        own, cache=LayerCache(group=0, keys=own.cache.keys.clone(), values=own.cache.values.clone())
    )
    kernels = TritonKernels()
    cos, sin = angles.cos().to(place.device, place.dtype), angles.sin().to(place.device, place.dtype)
    step = kernels.prepare(own.batch, cos, sin)
    query = kernels.rotate_and_write(own.query, key.to(place.device), value.to(place.device), own.cache, step)
    return query, own.cache


@pytest.mark.parametrize("heads", [(6, 2, 80), (3, 3, 96), (17, 1, 128)], ids=str)
def test_rotation_and_the_cache_equal_the_reference(place, heads):
    case, key, value, angles = step_of(place, heads, place.dtype)

    query, cache = written(place, case, key, value, angles)

    step = reference.prepare(case.batch, angles.cos().double(), angles.sin().double())
    expected = LayerCache(group=0, keys=case.cache.keys.double(), values=case.cache.values.double())
    place.close(
        query, reference.rotate_and_write(case.query.double(), key.double(), value.double(), expected, step)
    )
    slots = case.batch.groups[0].slots
    place.close(cache.keys.cpu()[slots], expected.keys[slots])
    assert torch.equal(cache.values.cpu()[slots], value)


@pytest.mark.parametrize("cached", CACHED, ids=str)
@pytest.mark.parametrize("size", [12, *(pytest.param(size, marks=pytest.mark.slow) for size in (8, 64, 96))])
def test_a_cache_of_another_type_is_written_as_the_reference_writes_it(place, cached, size):
    case, key, value, angles = step_of(place, (4, 2, size), cached)
    value[1, 1] = 0
    flat = torch.zeros_like(angles)

    _, cache = written(place, case, key, value, flat)

    slots = case.batch.groups[0].slots
    theirs = LayerCache(group=0, keys=case.cache.keys.clone(), values=case.cache.values.clone())
    ones, zeros = torch.ones(4, size // 2).to(place.dtype), torch.zeros(4, size // 2).to(place.dtype)
    reference.rotate_and_write(case.query, key, value, theirs, reference.prepare(case.batch, ones, zeros))
    for found, expected in ((cache.keys.cpu(), theirs.keys), (cache.values.cpu(), theirs.values)):
        own, wanted = (from_cached(held[slots], torch.float32) for held in (found, expected))
        torch.testing.assert_close(own, wanted, rtol=STEPS[cached], atol=1e-5)


def test_only_the_tokens_own_slots_are_written(place):
    case, key, value, angles = step_of(place, (4, 2, 8), place.dtype)

    _, cache = written(place, case, key, value, angles)

    untouched = torch.ones(len(cache.keys), dtype=torch.bool)
    untouched[case.batch.groups[0].slots] = False
    for found, before in ((cache.keys, case.cache.keys), (cache.values, case.cache.values)):
        torch.testing.assert_close(found.to(CPU)[untouched], before[untouched], equal_nan=True)


def test_a_row_that_only_fills_a_batch_up_is_not_written(place):
    case, key, value, angles = step_of(place, (4, 2, 8), place.dtype)
    group = case.batch.groups[0]
    slots = group.slots.clone()
    slots[0] = -1
    batch = dataclasses.replace(case.batch, groups=(dataclasses.replace(group, slots=slots),))

    _, cache = written(place, dataclasses.replace(case, batch=batch), key, value, angles)

    untouched = torch.ones(len(cache.keys), dtype=torch.bool)
    untouched[slots[1:]] = False
    torch.testing.assert_close(cache.keys.to(CPU)[untouched], case.cache.keys[untouched], equal_nan=True)


def test_queries_keys_and_values_may_be_views_of_one_projection(place):
    case, key, value, angles = step_of(place, (4, 2, 8), place.dtype)
    joined = torch.cat((case.query, key, value), dim=1)  # [T, H + 2 K, D]
    query, key_view, value_view = joined.split_with_sizes((4, 2, 2), dim=1)

    found = written(place, dataclasses.replace(case, query=query), key_view, value_view, angles)

    expected = written(place, case, key, value, angles)
    assert torch.equal(found[0], expected[0])
    torch.testing.assert_close(found[1].keys, expected[1].keys, equal_nan=True, rtol=0, atol=0)
    torch.testing.assert_close(found[1].values, expected[1].values, equal_nan=True, rtol=0, atol=0)
