"""What a load asks for is exact, repeatable and shared as told."""

from itertools import pairwise

import pytest

from benchmarks.load.workload import Load, Span, arrivals, plan_orders, plan_warmup


def load(**changes):
    fields = {
        "num_requests": 4,
        "input_tokens": Span(least=8, most=8),
        "output_tokens": Span(least=3, most=5),
    }
    return Load(**fields | changes)


@pytest.mark.parametrize(
    ("text", "least", "most"), [("64", 64, 64), ("32:512", 32, 512)], ids=["one number", "from to"]
)
def test_a_span_is_read(text, least, most):
    assert Span.read(text) == Span(least=least, most=most)


def test_a_span_that_ends_before_it_begins_is_refused():
    with pytest.raises(ValueError, match="9:3"):
        Span(least=9, most=3)


def test_lengths_stay_in_their_spans_and_reach_both_ends():
    orders = plan_orders(load(num_requests=200, input_tokens=Span(least=1, most=3)), 100)

    assert {len(order.prompt) for order in orders} == {1, 2, 3}
    assert {order.output_tokens for order in orders} == {3, 4, 5}


def test_the_same_seed_asks_the_same():
    assert plan_orders(load(seed=7), 100) == plan_orders(load(seed=7), 100)


def test_another_seed_asks_something_else():
    assert plan_orders(load(seed=7), 100) != plan_orders(load(seed=8), 100)


def test_numbers_lie_within_the_vocabulary():
    orders = plan_orders(load(num_requests=50), 3)

    assert {number for order in orders for number in order.prompt} == {0, 1, 2}


def test_a_group_shares_its_beginning_and_nothing_else():
    first, second, third, fourth = plan_orders(load(shared_tokens=5, num_groups=2), 1_000)

    assert first.prompt[:5] == third.prompt[:5] != second.prompt[:5]
    assert second.prompt[:5] == fourth.prompt[:5]
    assert first.prompt[5:] != third.prompt[5:]
    assert {len(order.prompt) for order in (first, second, third, fourth)} == {8}


def test_nothing_is_due_in_a_closed_loop():
    assert arrivals(load()) == [None] * 4


def test_a_constant_rate_comes_at_even_times():
    assert arrivals(load(rate_per_s=4.0, pattern="constant")) == [0, 0.25, 0.5, 0.75]


def test_a_poisson_process_has_its_rate_and_its_spread():
    due_s = arrivals(load(num_requests=4_001, rate_per_s=2.0))
    gaps_s = [later - earlier for earlier, later in pairwise(due_s)]
    mean_s = sum(gaps_s) / len(gaps_s)
    variance = sum((gap - mean_s) ** 2 for gap in gaps_s) / len(gaps_s)

    assert due_s[0] == 0
    assert mean_s == pytest.approx(0.5, rel=0.05)
    assert variance == pytest.approx(0.25, rel=0.15)


def test_the_warm_up_is_short_and_of_other_prompts():
    warmup = plan_warmup(load(num_warmup=2, output_tokens=Span(least=99, most=99)), 1_000)
    measured = plan_orders(load(), 1_000)

    assert [order.output_tokens for order in warmup] == [8, 8]
    assert not {order.prompt for order in warmup} & {order.prompt for order in measured}


@pytest.mark.parametrize(
    "changes",
    [
        {"num_requests": 0},
        {"concurrency": 0},
        {"rate_per_s": 0.0},
        {"shared_tokens": 8},
        {"output_tokens": Span(least=0, most=1)},
    ],
    ids=str,
)
def test_a_load_that_cannot_be_is_refused(changes):
    with pytest.raises(ValueError, match=r"at least 1|no rate|leave nothing"):
        load(**changes)
