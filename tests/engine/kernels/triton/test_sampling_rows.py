import torch
import triton
import triton.language as tl

from engine.kernels.triton.sampling_rows import key_of, key_of_few


@triton.jit
def write_keys(scores, keys, count: tl.constexpr):
    lanes = tl.arange(0, count)
    tl.store(keys + lanes, key_of(tl.load(scores + lanes)))


@triton.jit
def write_key_of_best(keys, number, found, count: tl.constexpr):
    worth = tl.full([count], 1, dtype=tl.int32)
    tl.store(found, key_of_few(tl.load(keys + tl.arange(0, count)), worth, number))


def keys(place, scores):
    found = torch.zeros(len(scores), dtype=torch.int32, device=place.device)
    write_keys[(1,)](torch.tensor(scores, device=place.device), found, count=len(scores))
    return found


def test_larger_scores_have_smaller_keys_and_the_largest_has_none_below(place):
    found = keys(place, [0.0, -1e-30, -0.5, -2.0, -100.0, -1e30, -1e38, float("-inf")]).tolist()

    assert found == sorted(found)
    assert found[0] == 0
    assert len(set(found)) == 8


def test_the_key_of_the_best_few_is_that_of_the_last_of_them(place):
    own = keys(place, [-3.0, -1.0, 0.0, -1.0, -7.0, -2.0, -9.0, -4.0])
    found = torch.zeros(1, dtype=torch.int32, device=place.device)

    for number, expected in ((1, 2), (2, 1), (3, 3), (4, 5), (8, 6)):
        write_key_of_best[(1,)](own, number, found, count=8)
        assert found.item() == own[expected].item()


def test_there_is_no_key_that_keeps_more_than_there_are(place):
    own = keys(place, [-3.0, -1.0])
    found = torch.zeros(1, dtype=torch.int32, device=place.device)

    write_key_of_best[(1,)](own, 3, found, count=2)

    assert found.item() == 2**31 - 1
