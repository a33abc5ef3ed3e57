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
