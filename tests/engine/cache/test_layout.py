import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.cache.layout import CacheDemand, plan_layout, ring_blocks
from engine.errors import ConfigError
from tests.support.specs import small_layout, small_spec


@given(
    window=st.integers(1, 40),
    max_chunk_tokens=st.integers(1, 40),
    block_size=st.integers(1, 20),
    start=st.integers(0, 200),
)
def test_the_ring_is_as_long_as_the_live_positions_can_touch(window, max_chunk_tokens, block_size, start):
    first = max(0, start - window + 1)
    touched = (start + max_chunk_tokens - 1) // block_size - first // block_size + 1

    assert touched <= ring_blocks(window, max_chunk_tokens, block_size, 10_000)


@given(window=st.integers(1, 40), max_chunk_tokens=st.integers(1, 40), block_size=st.integers(1, 20))
def test_the_ring_is_no_longer_than_needed(window, max_chunk_tokens, block_size):
    longest = max(
        (start + max_chunk_tokens - 1) // block_size - (start - window + 1) // block_size + 1
        for start in range(window, window + block_size)
    )

    assert longest == ring_blocks(window, max_chunk_tokens, block_size, 10_000)


def test_full_attention_gets_a_ring_that_never_wraps():
    assert ring_blocks(None, 8, 4, 1001) == 251


def test_a_window_longer_than_the_context_gets_no_more_than_the_context():
    assert ring_blocks(4096, 256, 16, 100) == 7


def test_layers_with_one_window_share_one_table():
    layout = small_layout(8, 8, 8)

    assert [group.layers for group in layout.groups] == [(0, 1, 2)]


def test_groups_hold_equally_many_layers():
    layout = small_layout(None, 8, 8, None, 8, 8)

    assert [group.layers for group in layout.groups] == [(0, 3), (1, 2), (4, 5)]


def test_mistral_7b_costs_half_a_gibibyte_per_full_window():
    spec = small_spec(*[4096] * 32, max_context=32768)
    bytes_per_token = 2 * 8 * 128 * 2 * 32
    layout = plan_layout(
        spec.__class__(**{**_fields(spec), "num_kv_heads": 8, "head_size": 128}),
        CacheDemand(block_size=16, cache_bytes=8 << 30, max_chunk_tokens=1, element_bytes=2),
    )

    assert bytes_per_token == 131_072
    assert layout.block_bytes == 16 * bytes_per_token
    assert layout.num_blocks_for(32768) * layout.block_bytes - (512 << 20) == layout.block_bytes


def test_max_context_is_what_fits_into_the_pool_alone():
    layout = small_layout(None, block_size=4, num_blocks=10, max_context=64)

    assert layout.max_context == 40


def test_a_windowed_model_is_not_bounded_by_the_pool():
    layout = small_layout(8, block_size=4, num_blocks=6, max_chunk_tokens=8, max_context=100_000)

    assert layout.max_context == 100_000


def test_a_pool_that_holds_no_chunk_is_refused_with_the_bytes_it_takes():
    with pytest.raises(
        ConfigError, match=r"kv_cache_bytes is 64, room for 4 positions.* needs at least 128 bytes"
    ):
        small_layout(None, block_size=4, num_blocks=1, max_chunk_tokens=8)


def test_more_context_than_the_model_has_is_refused():
    demand = CacheDemand(
        block_size=4, cache_bytes=1 << 20, max_chunk_tokens=8, element_bytes=4, max_context=65
    )

    with pytest.raises(ConfigError, match="max_context is 65, but the model was trained for 64"):
        plan_layout(small_spec(None), demand)


def test_sequences_at_a_length_are_counted_by_their_worst_case():
    layout = small_layout(None, block_size=4, num_blocks=64)

    assert layout.num_sequences_at(9) == 64 // 3


def _fields(spec):
    return {name: getattr(spec, name) for name in spec.__dataclass_fields__}
