from hypothesis import given
from hypothesis import strategies as st

from engine.cache.prefix import HashChain, PrefixIndex
from tests.support.manual_clock import ManualClock


def hashes(token_ids, *, block_size=4, salt=""):
    chain = HashChain(block_size, salt)
    chain.extend(token_ids)
    return chain.hashes


def index_with(*keys):
    index = PrefixIndex(max_seen=100)
    for block_id, (group, block_hash) in enumerate(keys):
        index.put(group, block_hash, block_id)
    return index


def test_only_full_blocks_have_a_hash():
    assert len(hashes(range(11))) == 2


def test_a_hash_stands_for_everything_before_it():
    one, other = hashes([1, 2, 3, 4, 5, 6, 7, 8]), hashes([9, 2, 3, 4, 5, 6, 7, 8])

    assert one[1] != other[1]
    assert one == hashes([1, 2, 3, 4, 5, 6, 7, 8, 9])[:2]


def test_a_chain_that_grows_equals_one_made_at_once():
    chain = HashChain(4)
    for stop in range(20):
        chain.extend(range(stop))

    assert chain.hashes == hashes(range(19))


def test_salts_have_no_hash_in_common():
    assert not set(hashes(range(8), salt="a")) & set(hashes(range(8), salt="b"))


def test_the_first_block_of_equal_content_stays_known():
    index = index_with((0, b"x"))
    index.put(0, b"x", 7)

    assert index.find(0, b"x") == 0
    assert 7 not in index


def test_a_forgotten_block_is_not_found():
    index = index_with((0, b"x"))
    index.forget(0)

    assert index.find(0, b"x") is None
    assert index.num_seen([b"x", b"y"]) == 1


def test_when_a_block_was_evicted_is_remembered():
    clock = ManualClock()
    index = PrefixIndex(100, clock.now)
    index.put(0, b"x", 0)

    assert index.evicted_s_ago(b"x") is None
    index.forget(0)
    clock.jump(3.0)
    assert index.evicted_s_ago(b"x") == 3.0


def test_only_so_many_hashes_are_remembered():
    index = PrefixIndex(max_seen=2)
    for block_id, block_hash in enumerate((b"a", b"b", b"c")):
        index.put(0, block_hash, block_id)

    assert index.num_seen([b"a"]) == 0
    assert index.num_seen([b"b", b"c", b"d"]) == 2


def test_full_attention_needs_every_block_before_the_hit():
    chain = hashes(range(16))
    index = index_with((0, chain[0]), (0, chain[1]), (0, chain[3]))

    assert index.longest_hit(chain, 4, [(None, 4)]) == 2


def test_a_window_needs_only_what_it_still_shows():
    chain = hashes(range(16))
    index = index_with((0, chain[2]), (0, chain[3]))

    assert index.longest_hit(chain, 4, [(8, 4)]) == 4
    assert index.longest_hit(chain, 4, [(10, 4)]) == 0


def test_all_groups_must_agree():
    chain = hashes(range(16))
    index = index_with((0, chain[0]), (0, chain[1]), (0, chain[2]), (1, chain[1]))

    assert index.longest_hit(chain, 4, [(None, 4), (5, 4)]) == 2


@given(
    groups=st.lists(
        st.tuples(st.sets(st.integers(0, 9)), st.none() | st.integers(1, 20)), min_size=1, max_size=3
    ),
    limit=st.integers(0, 10),
)
def test_the_hit_is_the_largest_that_is_whole_in_every_group(groups, limit):
    chain = hashes(range(40))
    index = index_with(
        *[(group, chain[number]) for group, (present, _) in enumerate(groups) for number in present]
    )
    expected = 0
    for num_blocks in range(1, limit + 1):
        oldest = [0 if window is None else max(0, num_blocks * 4 - window + 1) for _, window in groups]
        needed = [{position // 4 for position in range(first, num_blocks * 4)} for first in oldest]
        if all(blocks <= present for blocks, (present, _) in zip(needed, groups, strict=True)):
            expected = num_blocks

    assert index.longest_hit(chain, limit, [(window, 4) for _, window in groups]) == expected


def test_of_a_long_prompt_that_nobody_has_seen_one_block_is_looked_at():
    class Counted(list):
        num_read = 0

        def __getitem__(self, key):
            self.num_read += 1
            return super().__getitem__(key)

    chain = Counted(hashes(range(4000)))

    assert index_with().longest_hit(chain, 1000, [(None, 4)]) == 0
    assert chain.num_read == 1
