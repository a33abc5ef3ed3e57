"""Random numbers that are a function of seed, choice and position alone.

So a sequence draws the same tokens alone, in company, and again after it was preempted; and the
same integers come out on every device, since they are computed on the host.
Source: Salmon et al. 2011, Parallel random numbers: as easy as 1, 2, 3 (Philox4x32-10).
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
WEYL_KEYS = (np.uint64(0x9E3779B9), np.uint64(0xBB67AE85))
NUM_ROUNDS = 10
LOW_32 = np.uint64(0xFFFFFFFF)
SHIFT_32 = np.uint64(32)

Words = npt.NDArray[np.uint64]


def philox4x32(counter: tuple[Words, Words, Words, Words], key: tuple[Words, Words]) -> tuple[Words, ...]:
    """Four random 32-bit words per row, each row with its own counter and key.

    All arrays have one shape and hold 32-bit values in 64-bit integers.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(NUM_ROUNDS):
        product0 = c0 * MULTIPLIERS[0]
        product1 = c2 * MULTIPLIERS[1]
        c0, c1, c2, c3 = (
            (product1 >> SHIFT_32) ^ c1 ^ k0,
            product1 & LOW_32,
            (product0 >> SHIFT_32) ^ c3 ^ k1,
            product0 & LOW_32,
        )
        k0 = (k0 + WEYL_KEYS[0]) & LOW_32
        k1 = (k1 + WEYL_KEYS[1]) & LOW_32
    return c0, c1, c2, c3


def uniforms(
    seeds: Sequence[int], choices: Sequence[int], positions: Sequence[int], *, lane: int = 0
) -> list[float]:
    """One number in [0, 1) per row, with 53 random bits.

    `positions` are those of the tokens to be drawn; seeds have 64 bits. There are two independent
    numbers to be had for each, lane 0 from the first two words of the counter and lane 1 from the others.
    """
    seed = np.array(seeds, dtype=np.uint64)
    zero = np.zeros(len(seeds), dtype=np.uint64)
    counter = (np.array(positions, dtype=np.uint64), np.array(choices, dtype=np.uint64), zero, zero)
    words = philox4x32(counter, (seed & LOW_32, seed >> SHIFT_32))[2 * lane : 2 * lane + 2]
    bits = (words[0] >> np.uint64(5)) * np.uint64(1 << 26) + (words[1] >> np.uint64(6))
    numbers: list[float] = (bits.astype(np.float64) / float(1 << 53)).tolist()
    return numbers
