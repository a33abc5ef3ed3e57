import math
from dataclasses import replace

import pytest
import torch

from engine.batch import LayerCache
from engine.kernels import reference
from tests.support.attention_oracle import PagedCase, brute_force_attention, held_in, in_cache_of, paged_case

WINDOW = 8
TOLERANCES = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 4e-3, torch.bfloat16: 3e-2}
DTYPES = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


def attend(case: PagedCase, window: int | None) -> torch.Tensor:
    return reference.attend(case.query, case.cache, prepare(case), window)


def prepare(case: PagedCase) -> reference.PreparedStep:
    angles = torch.ones(len(case.query), case.query.shape[-1] // 2, dtype=case.query.dtype)
    return reference.prepare(case.batch, angles, angles)


def assert_is_brute_force(case: PagedCase, window: int | None) -> None:
    expected = brute_force_attention(case, window)
    tolerance = TOLERANCES[case.query.dtype]
    torch.testing.assert_close(attend(case, window).double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("length", [1, WINDOW - 1, WINDOW, WINDOW + 1, 2 * WINDOW, 2 * WINDOW + 1])
@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
def test_a_decode_sees_exactly_its_window(length, block_size):
    case = paged_case([(length - 1, length)], WINDOW, block_size=block_size)

    assert_is_brute_force(case, WINDOW)


@pytest.mark.parametrize("span", [(0, 2), (0, 9), (5, 9), (7, 9), (8, 10), (9, 33), (16, 25)], ids=str)
@pytest.mark.parametrize("block_size", [1, 3, 4, 16])
@pytest.mark.parametrize("window", [1, WINDOW - 1, WINDOW, WINDOW + 1, None])
def test_every_row_of_a_chunk_sees_exactly_its_window(span, block_size, window):
    case = paged_case([span], window, block_size=block_size)

    assert_is_brute_force(case, window)


@pytest.mark.parametrize("window", [1, WINDOW - 1, WINDOW, WINDOW + 1, None])
@pytest.mark.parametrize("block_size", [1, 3, 16])
def test_a_standing_batch_is_attended_without_asking_the_host(window, block_size):
    case = paged_case([(0, 1), (6, 7), (20, 21), (33, 34)], window, block_size=block_size)
    expected = brute_force_attention(case, window)
    groups = tuple(replace(group, bases=()) for group in case.batch.groups)
    standing = replace(case, batch=replace(case.batch, starts=(), groups=groups))

    assert standing.batch.is_standing
    torch.testing.assert_close(attend(standing, window).double(), expected, atol=1e-5, rtol=1e-5)


@DTYPES
def test_decodes_and_chunks_share_a_step_in_any_order_and_dtype(dtype):
    case = paged_case([(3, 4), (10, 15), (20, 21), (0, 7), (0, 1)], WINDOW, dtype=dtype)

    assert_is_brute_force(case, WINDOW)


@pytest.mark.parametrize("heads", [(4, 4, 8), (6, 2, 10), (3, 1, 16)], ids=str)
def test_query_heads_share_key_heads_in_groups(heads):
    case = paged_case([(4, 5), (2, 6)], None, heads=heads)

    assert_is_brute_force(case, None)


def test_decodes_of_very_different_lengths_agree_too():
    case = paged_case([(0, 1), (299, 300), (140, 141), (2, 3)], None, heads=(2, 1, 4), block_size=16)

    assert_is_brute_force(case, None)


def test_decodes_are_padded_to_less_than_twice_their_length():
    case = paged_case([(0, 1), (299, 300), (150, 151), (2, 3), (260, 261)], None, block_size=16)

    spans = prepare(case).spans(case.cache, None)

    padded = sorted((span.mask.shape[0], span.mask.shape[-1]) for span in spans)
    assert padded == [(1, 151), (2, 3), (2, 300)]


def test_the_window_is_the_layers_own_whatever_the_groups_is():
    case = paged_case([(20, 21), (12, 16)], None)

    assert_is_brute_force(case, WINDOW)


@pytest.mark.parametrize("cached", [torch.float32, torch.bfloat16, torch.int8], ids=str)
@pytest.mark.parametrize("computed", [torch.float32, torch.bfloat16], ids=str)
def test_a_cache_of_another_type_is_attended_as_what_it_holds(cached, computed):
    case = paged_case([(20, 21), (12, 16)], WINDOW, dtype=computed)

    found = attend(in_cache_of(cached, case), WINDOW)

    expected = brute_force_attention(held_in(cached, case), WINDOW)
    tolerance = TOLERANCES[computed]
    assert found.dtype == computed
    torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)


def test_a_table_that_ends_within_the_layers_window_is_a_bug():
    case = paged_case([(20, 21)], WINDOW)

    with pytest.raises(AssertionError, match="reach back"):
        attend(case, 3 * WINDOW)


def test_layers_of_one_group_and_window_share_what_was_worked_out():
    case = paged_case([(20, 21), (12, 16)], None)
    step = prepare(case)
    other = LayerCache(group=0, keys=case.cache.keys.clone(), values=case.cache.values.clone())

    assert step.spans(case.cache, WINDOW) is step.spans(other, WINDOW)
    assert step.spans(case.cache, WINDOW) is not step.spans(case.cache, None)


@DTYPES
def test_keys_and_queries_turn_by_the_angle_of_their_position(dtype):
    case = paged_case([(5, 8)], None, dtype=dtype)
    angles = torch.tensor([0.0, 0.3, 2.0], dtype=torch.float64)[:, None] * torch.tensor([1.0, 0.5, 0.2, 0.1])
    step = reference.prepare(case.batch, angles.cos().to(dtype), angles.sin().to(dtype))
    key, value = case.keys[0][5:], case.values[0][5:]

    query = reference.rotate_and_write(case.query, key, value, case.cache, step)

    turns = torch.polar(torch.ones_like(angles), angles).unsqueeze(1)  # [T, 1, D / 2]
    slots = case.batch.groups[0].slots
    for found, given in ((query, case.query), (case.cache.keys[slots], key)):
        halves = given.double().chunk(2, dim=-1)
        turned = torch.complex(*halves) * turns
        expected = torch.cat((turned.real, turned.imag), dim=-1)
        torch.testing.assert_close(found.double(), expected, atol=2 * TOLERANCES[dtype], rtol=0)
    assert torch.equal(case.cache.values[slots], value)


def test_only_the_tokens_own_slots_are_written():
    case = paged_case([(5, 8), (2, 3)], None)
    before = case.cache.keys.clone()
    key = torch.cat((case.keys[0][5:], case.keys[1][2:]))

    reference.rotate_and_write(case.query, key, key, case.cache, prepare(case))

    untouched = torch.ones(len(before), dtype=torch.bool)
    untouched[case.batch.groups[0].slots] = False
    torch.testing.assert_close(case.cache.keys[untouched], before[untouched], equal_nan=True)


@DTYPES
def test_the_norm_is_that_of_the_sum_and_the_sum_is_handed_on(dtype):
    hidden, residual, weight = (torch.randn(rows, 24).to(dtype) for rows in (5, 5, 1))

    normed, total = reference.norm_residual(hidden, residual, weight[0], 1e-5)

    wide = (hidden + residual).double()
    expected = wide / (wide.square().mean(-1, keepdim=True) + 1e-5).sqrt() * weight[0].double()
    torch.testing.assert_close(normed.double(), expected, atol=TOLERANCES[dtype], rtol=2 * TOLERANCES[dtype])
    assert torch.equal(total, hidden + residual)


def test_the_first_norm_has_no_residual():
    hidden, weight = torch.randn(3, 8), torch.ones(8)

    normed, total = reference.norm_residual(hidden, None, weight, 1e-6)

    assert torch.equal(total, hidden)
    assert torch.equal(normed, reference.norm_residual(hidden, torch.zeros(3, 8), weight, 1e-6)[0])


def test_the_square_of_a_float16_does_not_overflow_in_the_norm():
    hidden = torch.full((1, 16), 1000.0, dtype=torch.float16)

    normed, _ = reference.norm_residual(hidden, None, torch.ones(16, dtype=torch.float16), 1e-6)

    assert normed.tolist() == [[1.0] * 16]


def test_the_gate_comes_before_what_it_gates():
    gate, up = torch.tensor([[0.0, 1.0, -2.0]]), torch.tensor([[5.0, 3.0, 0.5]])

    gated = reference.silu_mul(torch.cat((gate, up), dim=-1))

    expected = [[0.0, 3.0 / (1 + math.exp(-1)), -1.0 / (1 + math.exp(2))]]
    torch.testing.assert_close(gated, torch.tensor(expected))


def test_a_linear_adds_its_bias():
    hidden, weight, bias = torch.randn(3, 4), torch.randn(5, 4), torch.randn(5)

    torch.testing.assert_close(reference.linear(hidden, weight, bias), hidden @ weight.T + bias)
    torch.testing.assert_close(reference.linear(hidden, weight, None), hidden @ weight.T)
