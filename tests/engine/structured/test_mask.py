import gc

import numpy as np
import pytest

from engine.structured.mask import MaskTable
from tests.support.byte_vocabulary import EOS_ID, TOKENS


@pytest.fixture
def masks():
    table = MaskTable()
    yield table
    table.close()


def allowed(bits):
    return [
        np.flatnonzero(row).tolist() for row in np.unpackbits(bits.view(np.uint8), axis=1, bitorder="little")
    ]


def test_each_row_allows_what_may_come_next_in_its_own_sequence(automaton, masks):
    some = {7: automaton("start: /[ab]+/"), 3: automaton('start: "xy"'), 5: automaton('start: "z"')}
    for sequence_id, one in some.items():
        masks.add(sequence_id, one)
    some[7].advance(ord("a"))
    some[5].advance(ord("z"))

    bits = masks.fill([3, 5, 7]).result()
    assert bits.shape == (3, -(-TOKENS.vocab_size // 32))
    assert allowed(bits) == [[ord("x")], [EOS_ID], [ord("a"), ord("b"), EOS_ID]]


def test_one_that_failed_has_a_mask_all_the_same(automaton, masks):
    one, other = automaton('start: "a"'), automaton('start: "b"')
    masks.add(1, one)
    masks.add(2, other)
    one.advance(ord("x"))

    assert allowed(masks.fill([1, 2]).result()) == [[EOS_ID], [ord("b")]]


def test_what_its_sequence_forgets_is_gone(automaton, masks):
    masks.add(1, automaton('start: "a"'))
    gc.collect()

    with pytest.raises(KeyError):
        masks.fill([1])
