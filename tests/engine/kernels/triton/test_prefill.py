import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.kernels.cached import from_cached
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
    kernels = kernels or TritonKernels(decode=SMALL, prefill=SMALL)
    angles = torch.ones(len(case.query), case.query.shape[-1] // 2, device=case.query.device)
    return kernels.attend(case.query, case.cache, kernels.prepare(case.batch, angles, angles), window)


@pytest.mark.parametrize(
    "span",
    [
        (0, 2),
        (7, 9),
        *(
            pytest.param(span, marks=pytest.mark.slow)
            for span in [(0, 9), (5, 9), (8, 10), (9, 33), (16, 25)]
        ),
    ],
    ids=str,
)
@pytest.mark.parametrize("window", [1, WINDOW - 1, WINDOW, WINDOW + 1, None])
def test_every_row_of_a_chunk_sees_exactly_its_window(place, span, window):
    case = paged_case([span], window, block_size=3, dtype=place.dtype)

    place.close(attend(placed(case, place.device), window), brute_force_attention(case, window))


@pytest.mark.parametrize(("block_size", "window"), [(1, 33), (3, None), (64, 20)])
def test_blocks_of_any_size_and_tiles_inside_and_at_the_edges_agree(place, block_size, window):
    case = paged_case([(70, 101)], window, heads=(1, 1, 16), block_size=block_size, dtype=place.dtype)

    place.close(attend(placed(case, place.device), window), wide_attention(case, window))


@pytest.mark.parametrize("heads", HEADS, ids=str)
def test_heads_of_any_size_share_key_heads_in_groups(place, heads):
    case = paged_case([(20, 37)], 18, heads=heads, dtype=place.dtype)

    place.close(attend(placed(case, place.device), 18), wide_attention(case, 18))


def test_decodes_and_chunks_share_a_step_in_any_order(place):
    spans = [(3, 4), (10, 15), (20, 21), (0, 7), (0, 1), (40, 60), (8, 10)]
    case = paged_case(spans, WINDOW, dtype=place.dtype)

    place.close(attend(placed(case, place.device), WINDOW), brute_force_attention(case, WINDOW))


def test_the_sizes_for_serving_agree_too(place):
    case = paged_case([(100, 150), (3, 40), (64, 65)], 90, heads=(3, 1, 64), block_size=16, dtype=place.dtype)

    place.close(attend(placed(case, place.device), 90, TritonKernels()), wide_attention(case, 90))


@pytest.mark.parametrize("cached", [torch.float16, torch.bfloat16, torch.int8, torch.float8_e4m3fn], ids=str)
def test_a_cache_of_another_type_is_attended_as_what_it_holds(place, cached):
    case = in_cache_of(cached, paged_case([(20, 30), (0, 40)], WINDOW, dtype=place.dtype))
    keys, values = (from_cached(held, torch.float64) for held in (case.cache.keys, case.cache.values))
    held = dataclasses.replace(case, cache=dataclasses.replace(case.cache, keys=keys, values=values))

    place.close(attend(placed(case, place.device), WINDOW), wide_attention(held, WINDOW))


@pytest.mark.parametrize("window", [None, 9])
def test_a_row_is_the_same_to_the_last_bit_wherever_its_chunk_begins_and_whatever_is_beside_it(place, window):
    kernels = TritonKernels(prefill=SMALL)
    whole = placed(paged_case([(0, 40)], None, heads=(2, 1, 16), dtype=place.dtype), place.device)
    together = attend(whole, window, kernels)

    for start, stop in ((30, 40), (17, 19)):
        part = _part(whole, start, stop)

        assert torch.equal(attend(part, window, kernels), together[start:stop])


@pytest.mark.parametrize("window", [None, 9])
def test_uniform_kernels_compute_a_token_alone_as_in_a_longer_chunk(place, window):
    kernels = TritonKernels(prefill=SMALL, is_uniform=True)
    whole = placed(paged_case([(0, 30)], None, heads=(2, 1, 16), dtype=place.dtype), place.device)
    together = attend(whole, window, kernels)

    for row in (8, 29):
        assert torch.equal(attend(_part(whole, row, row + 1), window, kernels)[0], together[row])


def test_a_row_that_only_fills_a_batch_up_gives_zeros_to_uniform_kernels_too(place):
    case = paged_case([(20, 21), (12, 13)], WINDOW, dtype=place.dtype)
    group = case.batch.groups[0]
    nowhere = dataclasses.replace(group, slots=group.slots * torch.tensor([1, 0]) - torch.tensor([0, 1]))
    padded = dataclasses.replace(case, batch=dataclasses.replace(case.batch, groups=(nowhere,)))

    found = attend(placed(padded, place.device), WINDOW, TritonKernels(prefill=SMALL, is_uniform=True))

    place.close(found[:1], wide_attention(case, WINDOW)[:1])
    assert not found[1].any()


def _part(whole: PagedCase, start: int, stop: int) -> PagedCase:
    """Positions [start, stop) of the one chunk of `whole`, which begins at 0, as a chunk of their own."""
    (group,) = whole.batch.groups
    own = slice(start, stop)
    batch = dataclasses.replace(
        whole.batch,
        token_ids=whole.batch.token_ids[own],
        positions=whole.batch.positions[own],
        row_starts=(0, stop - start),
        row_bounds=torch.tensor([0, stop - start], device=whole.query.device),
        starts=(start,),
        groups=(dataclasses.replace(group, slots=group.slots[own]),),
    )
    return dataclasses.replace(whole, query=whole.query[own].contiguous(), batch=batch)


CHUNKS = {
    "starts": st.lists(st.tuples(st.integers(0, 40), st.integers(1, 30)), min_size=1, max_size=3),
    "window": st.none() | st.integers(1, 60),
    "block_size": st.sampled_from([1, 2, 5, 16, 64]),
    "heads": st.sampled_from([(2, 2, 8), (3, 1, 10), (7, 1, 16)]),
}


def check_chunks(starts, window, block_size, heads):
    skip_elsewhere(INTERPRETED)
    case = paged_case(
        [(start, start + size) for start, size in starts], window, heads=heads, block_size=block_size
    )

    INTERPRETED.close(attend(case, window), wide_attention(case, window))


@settings(max_examples=3)
@given(**CHUNKS)
def test_any_chunks_are_attended_as_by_the_reference(starts, window, block_size, heads):
    check_chunks(starts, window, block_size, heads)


@pytest.mark.slow
@settings(max_examples=200)
@given(**CHUNKS)
def test_hundreds_of_chunks_are_attended_as_by_the_reference(starts, window, block_size, heads):
    check_chunks(starts, window, block_size, heads)
