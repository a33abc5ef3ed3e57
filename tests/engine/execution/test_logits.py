import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from engine.execution import logits as stages

LOGITS = torch.tensor([[1.0, 3.0, 2.0, 0.0], [0.0, 0.0, 5.0, 4.0]])


def kept(masked):
    return [[index for index, value in enumerate(row) if value > -torch.inf] for row in masked.tolist()]


def test_temperature_scales_each_row_by_its_own():
    scaled = stages.scale_by_temperature(LOGITS, torch.tensor([1.0, 0.5]))

    assert torch.allclose(scaled.softmax(-1), (LOGITS / torch.tensor([[1.0], [0.5]])).softmax(-1))


def test_a_tiny_temperature_leaves_the_largest():
    scaled = stages.scale_by_temperature(LOGITS, torch.tensor([1e-30, 1e-30]))

    assert scaled.softmax(-1).tolist() == [[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0]]


def test_top_k_keeps_the_largest_of_each_row():
    assert kept(stages.keep_top_k(LOGITS, torch.tensor([2, 0]))) == [[1, 2], [0, 1, 2, 3]]


def test_top_k_beyond_the_vocabulary_keeps_everything():
    assert kept(stages.keep_top_k(LOGITS, torch.tensor([99, 1]))) == [[0, 1, 2, 3], [2]]


def test_top_p_keeps_the_fewest_that_reach_it():
    logits = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log().repeat(4, 1)

    assert kept(stages.keep_top_p(logits, torch.tensor([0.4, 0.6, 0.94, 1.0]))) == [
        [0],
        [0, 1],
        [0, 1, 2],
        [0, 1, 2, 3],
    ]


def test_top_p_keeps_at_least_the_most_probable():
    assert kept(stages.keep_top_p(LOGITS, torch.tensor([1e-9, 1e-9]))) == [[1], [2]]


@given(seed=st.integers(0, 10_000), top_p=st.floats(0.05, 0.999))
def test_top_p_of_a_flat_row_equals_exact_enumeration(seed, top_p):
    # A vocabulary larger than the head that is looked at first, so that the full sort is taken too.
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(1, 3000, generator=generator, dtype=torch.float64) * 0.1
    masked = stages.keep_top_p(logits, torch.tensor([top_p], dtype=torch.float64))
    order = logits[0].argsort(descending=True)
    mass = logits[0].softmax(-1)[order].cumsum(0)
    num_kept = int((mass < top_p - 1e-12).sum()) + 1

    assert set(kept(masked)[0]) == set(order[:num_kept].tolist())


def test_rows_do_not_influence_each_other():
    both = stages.keep_top_p(LOGITS, torch.tensor([0.7, 0.99]))
    alone = stages.keep_top_p(LOGITS[1:], torch.tensor([0.99]))

    assert torch.equal(both[1:], alone)


def enumerated(logits, order_key, mass):
    """The fewest tokens in the order of `order_key` whose probabilities sum to `mass`: token by token."""
    total = sum(math.exp(x) for x in logits)
    probabilities = [math.exp(x) / total for x in logits]
    kept, reached = set(), 0.0
    for index in sorted(range(len(logits)), key=lambda index: order_key(probabilities, index)):
        if reached >= mass:
            break
        kept.add(index)
        reached += probabilities[index]
    return kept


def by_probability(probabilities, index):
    return -probabilities[index]


def by_typicality(probabilities, index):
    entropy = -sum(p * math.log(p) for p in probabilities)
    return abs(-math.log(probabilities[index]) - entropy)


ROWS = st.lists(
    st.integers(-600, 600).map(lambda hundredths: hundredths / 100), min_size=1, max_size=12, unique=True
)


def one_row(values):
    return torch.tensor([values], dtype=torch.float64)


@given(values=ROWS, top_p=st.floats(0.01, 0.99))
def test_top_p_equals_enumeration(values, top_p):
    masked = stages.keep_top_p(one_row(values), torch.tensor([top_p], dtype=torch.float64))

    assert set(kept(masked)[0]) == enumerated(values, by_probability, top_p)


@given(values=ROWS, typical_p=st.floats(0.01, 0.99))
def test_typical_p_equals_enumeration(values, typical_p):
    masked = stages.keep_typical(one_row(values), torch.tensor([typical_p], dtype=torch.float64))

    # Two tokens may be equally far from the entropy to the last bit: then both may stay.
    found, expected = set(kept(masked)[0]), enumerated(values, by_typicality, typical_p)
    assert expected <= found
    assert len(found) <= len(expected) + 1


@given(values=ROWS, min_p=st.floats(0.0, 1.0))
def test_min_p_equals_enumeration(values, min_p):
    masked = stages.keep_min_p(one_row(values), torch.tensor([min_p], dtype=torch.float64))
    largest = max(values)
    near = {i for i, x in enumerate(values) if abs(math.exp(x - largest) - min_p) < 1e-12}

    expected = {i for i, x in enumerate(values) if math.exp(x - largest) >= min_p}
    assert set(kept(masked)[0]) | near == expected | near


@given(values=ROWS, top_k=st.integers(1, 14))
def test_top_k_equals_enumeration(values, top_k):
    masked = stages.keep_top_k(one_row(values), torch.tensor([top_k]))

    assert set(kept(masked)[0]) == set(sorted(range(len(values)), key=lambda i: -values[i])[:top_k])


@given(values=ROWS, threshold=st.floats(0.01, 0.6))
def test_xtc_equals_enumeration(values, threshold):
    probabilities = one_row(values).softmax(-1)[0].tolist()
    masked = stages.exclude_top_choices(one_row(values), torch.tensor([threshold], dtype=torch.float64))
    top = [i for i, p in enumerate(probabilities) if p >= threshold]
    excluded = {i for i in top if probabilities[i] > min(probabilities[j] for j in top)}

    assert set(kept(masked)[0]) == set(range(len(values))) - excluded


def test_each_row_is_cut_by_its_own_parameters():
    half = torch.tensor([0.5, 1.0])
    off = torch.tensor([0.6, 2.0])

    assert torch.equal(stages.keep_typical(LOGITS, half)[1], LOGITS[1])
    assert torch.equal(stages.keep_min_p(LOGITS, 1 - half)[1], LOGITS[1])
    assert torch.equal(stages.exclude_top_choices(LOGITS, off)[1], LOGITS[1])


def test_entries_change_nothing_but_themselves():
    entries = stages.Entries.gather([(0, [1, 2], [0.5, -0.5]), (1, [], [])], like=LOGITS)
    logits = LOGITS.clone()
    stages.add_bias(logits, entries)

    assert (logits - LOGITS).tolist() == [[0.0, 0.5, -0.5, 0.0], [0.0] * 4]


def test_no_entries_are_no_stage():
    assert stages.Entries.gather([(0, [], []), (1, [], [])], like=LOGITS) is None


def test_a_repetition_penalty_divides_above_zero_and_multiplies_below():
    logits = torch.tensor([[4.0, -4.0, 1.0]])
    stages.penalize_seen(logits, stages.Entries.gather([(0, [0, 1], [2.0, 2.0])], like=logits))

    assert logits.tolist() == [[2.0, -8.0, 1.0]]


def test_a_ban_is_lifted_only_in_the_row_where_nothing_else_is_left():
    logits = LOGITS.clone()
    stages.mask(logits, stages.Entries.gather([(0, [0, 1, 2, 3], [0.0] * 4), (1, [2], [0.0])], like=logits))

    assert kept(logits) == [[0, 1, 2, 3], [0, 1, 3]]


def bits_of(*rows):
    return np.array(rows, dtype=np.int64).astype(np.int32)


def test_a_mask_leaves_out_what_its_bits_do_not_name_in_its_own_row():
    unset = stages.unset_entries([0, 2], bits_of([0b101, 0], [-1, -1]), like=torch.zeros(4, 40))

    assert [row.nonzero().flatten().tolist() for row in ~unset] == [[0, 2], *[list(range(40))] * 3]


@pytest.mark.parametrize("vocab_size", [1, 31, 32, 33, 200])
def test_every_device_unpacks_the_same(vocab_size):
    words = -(-vocab_size // 32)
    bits = np.random.default_rng(0).integers(-(2**31), 2**31, (3, words), dtype=np.int64).astype(np.int32)
    unset = stages.unset_entries([0, 1, 2], bits, like=torch.zeros(3, vocab_size))

    assert stages.unpacked(torch.from_numpy(~bits), vocab_size).equal(unset)


def test_allowed_tokens_give_way_to_a_mask_that_leaves_none_of_them():
    logits = torch.tensor([[-torch.inf, 1.0, 2.0], [0.0, 1.0, 2.0]])
    allowed = stages.Entries.gather([(0, [0], [0.0]), (1, [0], [0.0])], like=logits)
    stages.mask_all_but(logits, allowed)

    assert kept(logits) == [[1, 2], [0]]
