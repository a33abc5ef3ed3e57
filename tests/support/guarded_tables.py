"""Attends with a block table that begins where a page begins, behind one that must not be touched.

    python -m tests.support.guarded_tables

To be run as a process of its own, which ends by a signal where a kernel reads an entry before the first.
"""

import ctypes
import mmap
from dataclasses import replace

import torch
from torch import Tensor

from tests.support.attention_oracle import PagedCase, brute_force_attention, paged_case
from tests.support.native import LEVELS, native_kernels

WINDOW = 200
PROT_NONE = 0


def behind_a_guard(table: Tensor) -> Tensor:
    """The same numbers at the start of a page, the one before it closed to reads."""
    memory = mmap.mmap(-1, 2 * mmap.PAGESIZE + table.nbytes)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), PROT_NONE):
        raise OSError(ctypes.get_errno(), "mprotect")
    guarded = torch.frombuffer(memory, dtype=table.dtype, count=table.numel(), offset=mmap.PAGESIZE)
    return guarded.view(table.shape).copy_(table)


def guarded_case(block_size: int, length: int) -> PagedCase:
    case = paged_case(
        [(length - 1, length)], WINDOW, block_size=block_size, dtype=torch.bfloat16, heads=(6, 2, 64)
    )
    (group,) = case.batch.groups
    return replace(
        case, batch=replace(case.batch, groups=(replace(group, tables=behind_a_guard(group.tables)),))
    )


def main() -> None:
    for level in LEVELS:
        kernels = native_kernels(level)
        for block_size in (1, 4, 7, 16, 48):
            for length in (400, 405, 411, 523):
                case = guarded_case(block_size, length)
                angles = torch.ones(1, 32)
                found = kernels.attend(
                    case.query.float(), case.cache, kernels.prepare(case.batch, angles, angles), WINDOW
                )
                torch.testing.assert_close(
                    found.double(), brute_force_attention(case, WINDOW), atol=3e-2, rtol=3e-2
                )


if __name__ == "__main__":
    main()
