import torch
import triton
import triton.language as tl

from engine.kernels.triton.attention_tile import slots_at


@triton.jit
def write_slots(table, table_width, offsets, found, block_size: tl.constexpr, count: tl.constexpr):
    lanes = tl.arange(0, count)
    tl.store(found + lanes, slots_at(table, table_width, tl.load(offsets + lanes), block_size))


def slots(place, table, offsets, block_size):
    found = torch.zeros(len(offsets), dtype=torch.int64, device=place.device)
    write_slots[(1,)](
        table.to(place.device),
        len(table),
        torch.tensor(offsets, dtype=torch.int32, device=place.device),
        found,
        block_size=block_size,
        count=len(offsets),
    )
    return found.tolist()


def test_an_offset_lies_in_the_block_of_its_entry(place):
    assert slots(place, torch.tensor([7, 2, 9]), [0, 3, 4, 11], 4) == [28, 31, 8, 39]


def test_a_ring_comes_round_again(place):
    assert slots(place, torch.tensor([7, 2, 9]), [12, 15, 16, 35], 4) == [28, 31, 8, 39]


def test_slots_of_a_very_large_pool_need_more_than_32_bits(place):
    assert slots(place, torch.tensor([2**31, 2**40]), [5, 21], 16) == [2**35 + 5, 2**44 + 5]
