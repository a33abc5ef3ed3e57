import numpy as np

from engine.execution.philox import philox4x32, uniforms


def words(*values):
    return tuple(np.array([value], dtype=np.uint64) for value in values)


def test_the_published_test_vectors_come_out():
    zeros = philox4x32(words(0, 0, 0, 0), words(0, 0))
    ones = philox4x32(words(*[0xFFFFFFFF] * 4), words(0xFFFFFFFF, 0xFFFFFFFF))
    digits = philox4x32(words(0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), words(0xA4093822, 0x299F31D0))

    assert [int(word[0]) for word in zeros] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    assert [int(word[0]) for word in ones] == [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]
    assert [int(word[0]) for word in digits] == [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]


def test_a_row_draws_the_same_alone_and_in_company():
    together = uniforms([1, 2, 2**64 - 1], [0, 3, 1], [5, 6, 100_000])

    assert together == [
        uniforms([s], [c], [p])[0] for s, c, p in ((1, 0, 5), (2, 3, 6), (2**64 - 1, 1, 100_000))
    ]


def test_seed_choice_and_position_each_change_the_number():
    numbers = uniforms([1, 2, 1, 1, 1 + 2**32], [0, 0, 1, 0, 0], [0, 0, 0, 1, 0])

    assert len(set(numbers)) == 5


def test_numbers_are_spread_evenly_over_zero_to_one():
    numbers = np.array(uniforms([7] * 20_000, [0] * 20_000, range(20_000)))
    counts = np.histogram(numbers, bins=10, range=(0.0, 1.0))[0]

    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    assert abs(counts - 2000).max() < 200


def test_the_two_lanes_of_a_counter_are_different_numbers():
    first = np.array(uniforms([7] * 5000, [0] * 5000, range(5000)))
    second = np.array(uniforms([7] * 5000, [0] * 5000, range(5000), lane=1))

    assert abs(np.corrcoef(first, second)[0, 1]) < 0.05
    assert 0.0 <= second.min() <= second.max() < 1.0
