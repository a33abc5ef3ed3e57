import torch

from engine.batch import LayerCache
from engine.kernels.triton.kernels import TritonKernels
from tests.support.attention_oracle import paged_case
from tests.support.triton_device import placed


def test_layers_of_one_shape_share_the_memory_of_their_splits(place):
    case = placed(paged_case([(20, 21), (12, 16)], None, dtype=place.dtype), place.device)
    angles = torch.ones(len(case.query), 4, device=place.device)

    step = TritonKernels().prepare(case.batch, angles, angles)

    assert step.parts(4, 1, 8) is step.parts(4, 1, 8)
    assert step.parts(4, 1, 8).weighted.shape == (2, 4, 1, 8)
    assert step.parts(4, 2, 8) is not step.parts(4, 1, 8)


def test_the_memory_of_splits_follows_from_the_tables_width_and_not_from_what_is_in_them(place):
    steps = []
    for spans in ([(300, 301), (299, 300)], [(0, 1), (1, 2)]):
        case = placed(paged_case([(300, 301), *spans], None, block_size=16, dtype=place.dtype), place.device)
        angles = torch.ones(len(case.query), 4, device=place.device)
        kernels = TritonKernels()
        step = kernels.prepare(case.batch, angles, angles)
        kernels.attend(case.query, case.cache, step, None)
        steps.append(step)

    first, second = ([parts.weighted.shape for parts in step._parts.values()] for step in steps)
    assert first == second == [(3, 4, 2, 8)]


def test_the_window_is_the_layers_own_whatever_the_groups_is(place):
    case = placed(paged_case([(20, 21), (12, 16)], None, dtype=place.dtype), place.device)
    narrow = placed(paged_case([(20, 21), (12, 16)], 8, dtype=place.dtype), place.device)
    angles = torch.ones(len(case.query), 4, device=place.device)
    kernels = TritonKernels()

    found = kernels.attend(case.query, case.cache, kernels.prepare(case.batch, angles, angles), 8)

    other = LayerCache(group=0, keys=narrow.cache.keys, values=narrow.cache.values)
    assert torch.equal(
        found, kernels.attend(narrow.query, other, kernels.prepare(narrow.batch, angles, angles), 8)
    )
