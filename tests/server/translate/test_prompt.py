import pytest

from engine import RequestError
from server.translate.prompt import INFILLS, echoed, infilled, truncated
from tests.support.fake_engine import FakeTokenizer

BOS = 0x100000
PLAIN = FakeTokenizer({}, frozenset())
WITH_BOS = FakeTokenizer({"<s>": BOS}, frozenset())


class Bytes(FakeTokenizer):
    """Bytes as tokens."""

    def token_bytes(self, token_id: int) -> bytes:
        return bytes([token_id])


def spell(text: str) -> tuple[int, ...]:
    return tuple(map(ord, text))


def test_each_token_has_its_place_in_the_text():
    prompt = echoed(spell("añb"), "añb", PLAIN, skips_special=True)

    assert (prompt.text, prompt.text_offsets, prompt.opening) == ("añb", (0, 1, 2), b"a")


def test_a_token_that_the_text_does_not_show_has_no_length():
    prompt = echoed((BOS, *spell("ab")), "ab", WITH_BOS, skips_special=True)

    assert prompt.text_offsets == (0, 0, 1)


def test_a_token_that_the_text_spells_has_its_length():
    prompt = echoed((BOS, *spell("ab")), "<s>ab", WITH_BOS, skips_special=True)

    assert prompt.text_offsets == (0, 3, 4)


def test_parts_of_a_character_begin_where_it_does():
    prompt = echoed(tuple("é!".encode()), "é!", Bytes({}, frozenset()), skips_special=True)

    assert prompt.text_offsets == (0, 0, 1)


def test_a_space_that_only_the_encoder_added_takes_no_place():
    prompt = echoed(spell(" ab"), "ab", PLAIN, skips_special=True)

    assert prompt.text_offsets == (0, 0, 1)


@pytest.mark.parametrize(("skips", "text"), [(True, "ab"), (False, "<s>ab")])
def test_ids_are_echoed_as_they_spell(skips, text):
    assert echoed((BOS, *spell("ab")), None, WITH_BOS, skips_special=skips).text == text


def test_truncation_keeps_the_end():
    assert truncated((1, 2, 3), 2) == (2, 3)
    assert truncated((1, 2, 3), 5) == (1, 2, 3)
    assert truncated((1, 2, 3), None) == (1, 2, 3)


@pytest.mark.parametrize("infill", INFILLS, ids=lambda infill: infill.prefix)
def test_each_spelling_of_infill_tokens_is_known(infill):
    special = {infill.prefix: 0x100000, infill.suffix: 0x100001}
    if infill.middle is not None:
        special[infill.middle] = 0x100002

    asked = infilled(spell("a"), "b", FakeTokenizer(special, frozenset()))

    if infill.starts_with_suffix:
        assert asked == (0x100001, ord("b"), 0x100000, ord("a"))
    else:
        assert asked == (0x100000, ord("a"), 0x100001, ord("b"), 0x100002)


def test_a_model_without_infill_tokens_has_no_suffix():
    with pytest.raises(RequestError) as caught:
        infilled(spell("a"), "b", PLAIN)

    assert caught.value.param == "suffix"
