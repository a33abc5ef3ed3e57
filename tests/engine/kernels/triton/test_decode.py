import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.batch import LayerCache
from engine.kernels.triton.block_sizes import BlockSizes
from engine.kernels.triton.kernels import TritonKernels
from tests.support.attention_oracle import PagedCase, brute_force_attention, in_cache_of, paged_case
from tests.support.triton_device import INTERPRETED, placed, skip_elsewhere, wide_attention

WINDOW = 8
SLOW_HEADS = [(4, 4, 32), (8, 1, 128), (2, 1, 256)]
HEADS = [
    (6, 2, 80),
    (5, 1, 96),
    (9, 3, 64),
    *(pytest.param(heads, marks=pytest.mark.slow) for heads in SLOW_HEADS),
]
SMALL = BlockSizes(rows=16, keys=16, num_warps=4, num_stages=2)


def attend(case: PagedCase, window: int | None, kernels: TritonKernels | None = None) -> torch.Tensor:
    """[T, H · D] by the kernels; the angles are not looked at."""
    kernels = kernels or TritonKernels(decode=SMALL)
    angles = torch.ones(len(case.query), case.query.shape[-1] // 2, device=case.query.device)
    return kernels.attend(case.query, case.cache, kernels.prepare(case.batch, angles, angles), window)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 1])
@pytest.mark.parametrize(
    "block_size", [3, *(pytest.param(size, marks=pytest.mark.slow) for size in (1, 4, 16))]
)
def test_a_decode_sees_exactly_its_window(place, length, block_size):
    case = paged_case([(length - 1, length)], WINDOW, block_size=block_size, dtype=place.dtype)

    found = attend(placed(case, place.device), WINDOW)

    place.close(found, brute_force_attention(case, WINDOW))


@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_heads_of_any_size_share_key_heads_in_groups(place, heads):
    case = paged_case([(4, 5), (40, 41)], 20, heads=heads, dtype=place.dtype)

    place.close(attend(placed(case, place.device), 20), wide_attention(case, 20))


@pytest.mark.parametrize(
    ("window", "last"), [(None, 255), (None, 600), (255, 256), (256, 511), (257, 256), (257, 600), (300, 600)]
)
def test_splits_of_the_keys_are_joined_again(place, window, last):
    case = paged_case([(last, last + 1)], window, heads=(2, 1, 16), block_size=16, dtype=place.dtype)
    kernels = TritonKernels(decode=dataclasses.replace(SMALL, keys=64))

    place.close(attend(placed(case, place.device), window, kernels), wide_attention(case, window))


def test_splits_of_a_long_context_are_longer_and_join_too(place):
    case = paged_case([(700, 701)], None, heads=(2, 1, 16), block_size=16, dtype=place.dtype)
    kernels = TritonKernels(max_context=20_000)

    place.close(attend(placed(case, place.device), None, kernels), wide_attention(case, None))


@pytest.mark.parametrize("cached", [torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn], ids=str)
def test_a_cache_of_another_type_is_attended_as_what_it_holds(place, cached):
    case = in_cache_of(cached, paged_case([(20, 21), (12, 13)], WINDOW, dtype=place.dtype))
    held = dataclasses.replace(case, cache=_as_held(case))

    place.close(attend(placed(case, place.device), WINDOW), wide_attention(held, WINDOW))


def test_a_row_that_only_fills_a_batch_up_reads_nothing_and_gives_zeros(place):
    case = paged_case([(20, 21), (12, 13)], WINDOW, dtype=place.dtype)
    alone = paged_case([(20, 21)], WINDOW, dtype=place.dtype)
    group = case.batch.groups[0]
    nowhere = dataclasses.replace(
        group, slots=torch.tensor([group.slots[0].item(), -1]), tables=group.tables * torch.tensor([[1], [0]])
    )
    padded = dataclasses.replace(case, batch=dataclasses.replace(case.batch, groups=(nowhere,)))

    found = attend(placed(padded, place.device), WINDOW)

    place.close(found[:1], wide_attention(case, WINDOW)[:1])
    assert not found[1].any()
    assert len(alone.query) == 1


def test_whole_rings_do_as_well_as_rotated_tables(place):
    """Base 0, and entry (p // B) % M for position p, as a table that is kept up to date in place has it."""
    case = paged_case([(30, 31), (13, 14)], WINDOW, block_size=4, dtype=place.dtype)
    group = case.batch.groups[0]
    width = group.tables.shape[1]
    rings = torch.zeros_like(group.tables)
    for chunk, (start, _) in enumerate(case.spans):
        for number in range(group.bases[chunk] // 4, start // 4 + 1):
            rings[chunk, number % width] = group.tables[chunk, number - group.bases[chunk] // 4]
    ring = dataclasses.replace(
        group, tables=rings, bases=(0, 0), base_positions=torch.zeros(2, dtype=torch.int64)
    )
    turned = dataclasses.replace(case, batch=dataclasses.replace(case.batch, groups=(ring,)))

    found = attend(placed(turned, place.device), WINDOW)

    assert torch.equal(found, attend(placed(case, place.device), WINDOW))


def test_a_row_is_the_same_to_the_last_bit_in_any_company(place):
    spans = [(300, 301), (5, 6), (290, 291)]
    case = placed(paged_case(spans, None, heads=(2, 1, 16), block_size=16, dtype=place.dtype), place.device)

    together = attend(case, None)

    for row in range(len(spans)):
        assert torch.equal(attend(_alone(case, row), None)[0], together[row])


def test_tables_may_be_of_32_bits(place):
    case = placed(paged_case([(20, 21), (12, 13)], WINDOW, dtype=place.dtype), place.device)
    group = dataclasses.replace(case.batch.groups[0], tables=case.batch.groups[0].tables.int())
    narrow = dataclasses.replace(case, batch=dataclasses.replace(case.batch, groups=(group,)))

    assert torch.equal(attend(narrow, WINDOW), attend(case, WINDOW))


def _as_held(case: PagedCase) -> LayerCache:
    from engine.kernels.cached import from_cached

    return LayerCache(
        group=0,
        keys=from_cached(case.cache.keys, torch.float64),
        values=from_cached(case.cache.values, torch.float64),
    )


def _alone(case: PagedCase, row: int) -> PagedCase:
    """Chunk `row`, of one token, in a step of its own."""
    (group,) = case.batch.groups
    own = slice(row, row + 1)
    batch = dataclasses.replace(
        case.batch,
        token_ids=case.batch.token_ids[own],
        positions=case.batch.positions[own],
        row_starts=(0, 1),
        row_bounds=case.batch.row_bounds[:2],
        starts=case.batch.starts[own],
        groups=(
            dataclasses.replace(
                group,
                slots=group.slots[own],
                tables=group.tables[own],
                bases=group.bases[own],
                base_positions=group.base_positions[own],
            ),
        ),
    )
    return dataclasses.replace(case, query=case.query[own], batch=batch)


DECODES = {
    "lengths": st.lists(st.integers(1, 70), min_size=1, max_size=3),
    "window": st.none() | st.integers(1, 70),
    "block_size": st.sampled_from([1, 2, 5, 16, 64]),
    "heads": st.sampled_from([(2, 2, 8), (3, 1, 10), (4, 2, 16)]),
}


def check_decodes(lengths, window, block_size, heads):
    skip_elsewhere(INTERPRETED)
    spans = [(length - 1, length) for length in lengths]
    case = paged_case(spans, window, heads=heads, block_size=block_size)

    INTERPRETED.close(attend(case, window), wide_attention(case, window))


@settings(max_examples=3)
@given(**DECODES)
def test_any_decodes_are_attended_as_by_the_reference(lengths, window, block_size, heads):
    check_decodes(lengths, window, block_size, heads)


@pytest.mark.slow
@settings(max_examples=200)
@given(**DECODES)
def test_hundreds_of_decodes_are_attended_as_by_the_reference(lengths, window, block_size, heads):
    check_decodes(lengths, window, block_size, heads)
