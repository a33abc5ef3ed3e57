import pytest

from engine.cache.pool import CachePool
from engine.scheduling.headroom import GuaranteedAdmission, OptimisticAdmission, new_admission
from engine.scheduling.sequence import make_sequences
from tests.support.new_request import new_request
from tests.support.specs import small_layout


def sequence(layout, number=0, *, prompt=6, max_tokens=6):
    request = new_request("x" * prompt, request_id=str(number), max_tokens=max_tokens)
    return make_sequences(request, number, [layout.new_tables()])[0]


@pytest.mark.parametrize(
    ("windows", "worst"), [((None,), (3,)), ((6,), (3,)), ((2,), (2,)), ((None, 2), (3, 2))]
)
def test_the_worst_case_is_known_before_it_begins(windows, worst):
    assert sequence(small_layout(*windows, max_chunk_tokens=4)).worst_blocks == worst


def test_a_window_bounds_the_worst_case_of_a_long_one():
    layout = small_layout(6, max_chunk_tokens=4)

    assert sequence(layout, prompt=30, max_tokens=30).worst_blocks == (layout.groups[0].ring_blocks,)


def test_guaranteed_takes_as_many_as_fit_at_their_worst():
    layout = small_layout(None, num_blocks=7)
    admission = GuaranteedAdmission(CachePool(layout))
    first, second, third = (sequence(layout, number) for number in range(3))

    assert [admission.takes(one) for one in (first, second, second, third)] == [True, True, True, False]
    for _ in range(2):
        admission.lets_go(first)
    assert admission.takes(third)
    assert not admission.takes(first)
    assert admission.headroom([second, third]) == 0


def test_optimistic_leaves_a_block_for_each_table_below_its_worst():
    layout = small_layout(None, 6, num_blocks=12)
    pool = CachePool(layout)
    short, full = sequence(layout), sequence(layout)
    pool.reserve(short.tables, 4)
    pool.reserve(full.tables, 12)

    assert OptimisticAdmission().takes(short)
    assert OptimisticAdmission().headroom([short, full]) == 2


def test_a_policy_is_found_by_its_name():
    pool = CachePool(small_layout(None))

    assert isinstance(new_admission("guaranteed", pool), GuaranteedAdmission)
    assert isinstance(new_admission("optimistic", pool), OptimisticAdmission)
