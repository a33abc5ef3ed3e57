"""Rows find their figures in a record, and every load can be planned."""

import pytest

from benchmarks.load.workload import plan_orders
from benchmarks.side_by_side.contest import LOADS, ROWS

RECORD = {
    "first_answer_s": 1.5,
    "peak_pss_bytes": 800_000_000,
    "loads": {"long-prompt": {"first_ms": {"p50": 250.0}}},
}


def row(words):
    return next(one for one in ROWS if words in one.title)


@pytest.mark.parametrize(
    ("words", "value"),
    [("1,500 in", 0.25), ("first answer", 1.5), ("memory", 0.8), ("one stream, 64", None), ("p99 gap", None)],
)
def test_a_row_finds_its_figure(words, value):
    assert row(words).value(RECORD) == value


@pytest.mark.parametrize("name", LOADS)
def test_a_load_asks_for_as_many_tokens_as_its_name_says(name):
    orders = plan_orders(LOADS[name], 100)

    assert {len(order.prompt) for order in orders} == {
        {"one-stream": 64, "long-prompt": 1_500, "eight-streams": 64, "sixteen-streams": 512}.get(name, 1_024)
    }


def test_every_row_of_a_load_names_one_that_is_there():
    assert {one.load for one in ROWS} - {None} == set(LOADS)


def test_the_shared_prefix_is_shared():
    orders = plan_orders(LOADS["shared-prefix"], 100)

    assert len({order.prompt[:1_000] for order in orders}) == 1
    assert len({order.prompt[1_000:] for order in orders}) == len(orders)
