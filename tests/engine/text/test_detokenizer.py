from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.request import SamplingParams
from engine.text.detokenizer import ChoiceText, Delta, StopMatcher, TextRules
from engine.text.token_logprob import TokenLogprob
from engine.text.tokenizer import Tokenizer
from tests.support.golden_tokens import read_golden
from tests.support.some_scores import some_scores
from tests.support.tiny_gguf import write_tokenizer_gguf
from tests.support.tiny_tokenizer import EOS_ID, IM_END_ID, write_tiny_tokenizer

SPECIAL_IDS = frozenset({IM_END_ID, EOS_ID})
LETTERS = st.text(alphabet="ab é🙂\n", max_size=24)
STOPS = st.lists(st.text(alphabet="ab é🙂\n", min_size=1, max_size=5), max_size=4).map(tuple)


@dataclass
class ChunkTokenizer:
    """Token i stands for the i-th of some bytes: a vocabulary that cuts a text as a test wants it."""

    chunks: Sequence[bytes]
    special_ids: frozenset[int] = frozenset()

    def token_bytes(self, token_id: int) -> bytes:
        return self.chunks[token_id]


@st.composite
def cuts(draw: st.DrawFn, whole: bytes) -> list[bytes]:
    """`whole` cut into tokens at any places, in the middle of characters too; some tokens are empty."""
    places = sorted(draw(st.lists(st.integers(0, len(whole)), max_size=12)))
    return [whole[start:end] for start, end in zip([0, *places], [*places, len(whole)], strict=True)]


def first_stop(text: str, stops: Sequence[str]) -> tuple[int, int] | None:
    """Where the first stop string to be complete begins and ends: the plain way to say it."""
    for end in range(1, len(text) + 1):
        found = [stop for stop in stops if text[:end].endswith(stop)]
        if found:
            return end - max(map(len, found)), end
    return None


def feed_all(choice: ChoiceText, num_tokens: int, group: int = 1) -> list[Delta]:
    """Feed tokens 0, 1, … in groups until the choice stops or they are used up, and flush it."""
    deltas: list[Delta] = []
    for start in range(0, num_tokens, group):
        ids = range(start, min(start + group, num_tokens))
        deltas.append(choice.feed(ids, some_scores(*[-float(token_id) for token_id in ids])))
        if deltas[-1].is_stopped:
            return deltas
    return [*deltas, choice.flush()]


@given(st.data(), LETTERS, STOPS, st.integers(1, 3))
@settings(max_examples=250)
def test_joined_deltas_are_the_text_up_to_the_first_stop_however_it_is_cut(
    data: st.DataObject, text: str, stops: tuple[str, ...], group: int
) -> None:
    chunks = data.draw(cuts(text.encode()))
    choice = ChoiceText(ChunkTokenizer(chunks), TextRules(stop=stops))

    deltas = feed_all(choice, len(chunks), group)

    stop = first_stop(text, stops)
    assert "".join(delta.text for delta in deltas) == (text if stop is None else text[: stop[0]])
    assert deltas[-1].is_stopped == (stop is not None)


@given(st.data(), LETTERS, STOPS)
@settings(max_examples=250)
def test_tokens_count_up_to_the_stop_and_are_released_unless_wholly_behind_its_start(
    data: st.DataObject, text: str, stops: tuple[str, ...]
) -> None:
    chunks = data.draw(cuts(text.encode()))
    choice = ChoiceText(ChunkTokenizer(chunks), TextRules(stop=stops))

    deltas = feed_all(choice, len(chunks))

    bounds = [sum(map(len, chunks[:index])) for index in range(len(chunks) + 1)]
    stop = first_stop(text, stops)
    if stop is None:
        expected_ids, expected_count = list(range(len(chunks))), len(chunks)
    else:
        start_byte, end_byte = (len(text[:index].encode()) for index in stop)
        expected_count = next(index for index, bound in enumerate(bounds) if bound >= end_byte)
        expected_ids = [
            index
            for index in range(expected_count)
            if bounds[index] < start_byte or bounds[index + 1] <= start_byte
        ]
    assert [token_id for delta in deltas for token_id in delta.token_ids] == expected_ids
    assert choice.num_tokens == expected_count


@given(st.data(), LETTERS, STOPS)
@settings(max_examples=200)
def test_each_released_id_comes_with_its_log_probability_and_its_text(
    data: st.DataObject, text: str, stops: tuple[str, ...]
) -> None:
    chunks = data.draw(cuts(text.encode()))
    choice = ChoiceText(ChunkTokenizer(chunks), TextRules(stop=stops))

    deltas = feed_all(choice, len(chunks))

    for delta in deltas:
        assert [entry.token_id for entry in delta.logprobs] == list(delta.token_ids)
        assert [entry.logprob for entry in delta.logprobs] == [-float(index) for index in delta.token_ids]
    released = b"".join(entry.token_bytes for delta in deltas for entry in delta.logprobs)
    assert released.startswith("".join(delta.text for delta in deltas).encode())


@given(st.data(), st.binary(max_size=24))
@settings(max_examples=200)
def test_invalid_bytes_become_what_a_whole_decode_makes_of_them(data: st.DataObject, whole: bytes) -> None:
    chunks = data.draw(cuts(whole))
    choice = ChoiceText(ChunkTokenizer(chunks), TextRules())

    deltas = feed_all(choice, len(chunks))

    assert "".join(delta.text for delta in deltas) == whole.decode("utf-8", "replace")


@given(st.text(alphabet="ab", max_size=20), st.lists(st.text("ab", min_size=1, max_size=4), max_size=3))
def test_the_matcher_holds_exactly_the_longest_end_that_may_become_a_stop(
    text: str, stops: list[str]
) -> None:
    stop = first_stop(text, stops)
    safe_text = text if stop is None else text[: stop[1] - 1]
    matcher = StopMatcher(stops)

    matcher.feed(safe_text)

    beginnings = [stop[:length] for stop in stops for length in range(1, len(stop))]
    assert matcher.num_held == max(
        (len(start) for start in beginnings if safe_text.endswith(start)), default=0
    )


@pytest.mark.parametrize(
    ("stops", "shown"),
    [
        pytest.param(("bc", "abcd"), "xa", id="a shorter one that is complete first"),
        pytest.param(("bc", "abc"), "x", id="the longest of those complete together"),
        pytest.param(("d", "cd"), "xab", id="one that ends another"),
    ],
)
def test_the_first_stop_string_to_be_complete_cuts_the_text(stops: tuple[str, ...], shown: str) -> None:
    choice = ChoiceText(ChunkTokenizer([b"xabcd"]), TextRules(stop=stops))

    assert choice.feed([0], None) == Delta(text=shown, token_ids=(0,), logprobs=(), is_stopped=True)


def test_a_possible_stop_is_held_back_and_released_when_it_comes_to_nothing() -> None:
    choice = ChoiceText(ChunkTokenizer([b"one", b" EN", b"TRY"]), TextRules(stop=("END",)))

    deltas = [choice.feed([token_id], None) for token_id in range(3)]

    assert [delta.text for delta in deltas] == ["one", "", " ENTRY"]
    assert [delta.token_ids for delta in deltas] == [(0,), (), (1, 2)]


def test_a_stop_string_across_tokens_is_never_shown_and_its_own_tokens_are_dropped() -> None:
    choice = ChoiceText(
        ChunkTokenizer([b"one\n", b"\nUs", b"er", b":", b"more"]), TextRules(stop=("\n\nUser:",))
    )

    delta = choice.feed(range(5), some_scores(*[-0.5] * 5))

    assert delta == Delta(
        text="one",
        token_ids=(0,),
        logprobs=(TokenLogprob(token_id=0, text="one\n", token_bytes=b"one\n", logprob=-0.5),),
        is_stopped=True,
        text_offsets=(0,),
    )
    assert choice.num_tokens == 4


@pytest.mark.parametrize("num_together", [1, 2, 5])
@pytest.mark.parametrize(
    ("tokens", "offsets"),
    [
        ([b"a", b"\xc3", b"\xb1", b"b", b"c"], (0, 1, 1, 2, 3)),
        ([b"a", b"<s>", b"<s>", b"bb", b"c"], (0, 1, 1, 1, 3)),
        (["🙂".encode()[:2], "🙂".encode()[2:], b"b", b"<s>", b"c"], (0, 0, 1, 2, 2)),
    ],
    ids=["part of a character", "without text", "both"],
)
def test_a_logged_token_says_where_its_text_begins_however_many_come_together(
    tokens, offsets, num_together
) -> None:
    silent_ids = frozenset(index for index, token in enumerate(tokens) if token == b"<s>")
    choice = ChoiceText(ChunkTokenizer(tokens), TextRules(silent_ids=silent_ids))

    fed = [range(first, min(5, first + num_together)) for first in range(0, 5, num_together)]
    deltas = [choice.feed(ids, some_scores(*[-0.5] * len(ids))) for ids in fed]

    assert tuple(offset for delta in deltas for offset in delta.text_offsets) == offsets


def test_a_character_in_several_tokens_appears_with_its_last_byte() -> None:
    family = "👨‍👩‍👧".encode()
    choice = ChoiceText(ChunkTokenizer([bytes([byte]) for byte in family]), TextRules())

    deltas = [choice.feed([index], None) for index in range(len(family))]

    assert [delta.text for delta in deltas if delta.text] == list("👨‍👩‍👧")
    assert [len(delta.token_ids) for delta in deltas if delta.text] == [4, 3, 4, 3, 4]


def test_bytes_that_are_no_text_are_held_for_three_bytes_at_most() -> None:
    choice = ChoiceText(ChunkTokenizer([b"\xf0", b"\x9f", b"\x99", b"\xff"]), TextRules())

    deltas = [choice.feed([index], None) for index in range(4)]

    assert [delta.text for delta in deltas] == ["", "", "", "\ufffd\ufffd"]


def test_an_incomplete_character_at_the_end_becomes_a_replacement() -> None:
    choice = ChoiceText(ChunkTokenizer([b"a\xe2\x82"]), TextRules())
    held = choice.feed([0], None)

    delta = choice.flush()

    assert (held.text, held.token_ids) == ("", ())
    assert (delta.text, delta.token_ids) == ("a\ufffd", (0,))


def test_flushing_releases_what_might_have_become_a_stop() -> None:
    choice = ChoiceText(ChunkTokenizer([b"the EN"]), TextRules(stop=("END",)))
    held = choice.feed([0], some_scores(-0.25))

    delta = choice.flush()

    assert held.text == ""
    assert (delta.text, delta.token_ids, len(delta.logprobs), delta.is_stopped) == ("the EN", (0,), 1, False)


def test_special_tokens_have_no_text_but_ids_and_log_probabilities(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    choice = ChoiceText(Tokenizer.load(tmp_path), TextRules(silent_ids=SPECIAL_IDS))

    delta = choice.feed([ord("a"), IM_END_ID, ord("b"), EOS_ID], some_scores(-1.0, -2.0, -3.0, -4.0))

    assert (delta.text, delta.token_ids) == ("ab", (ord("a"), IM_END_ID, ord("b"), EOS_ID))
    assert [(entry.text, entry.token_bytes) for entry in delta.logprobs[1:2]] == [
        ("<|im_end|>", b"<|im_end|>")
    ]


def test_a_choice_keeps_the_space_before_its_first_word(tmp_path: Path) -> None:
    path = write_tokenizer_gguf(tmp_path / "tiny.gguf", read_golden("sentencepiece")["vocabulary"])
    tokenizer = Tokenizer.load(path)
    choice = ChoiceText(tokenizer, TextRules(silent_ids=tokenizer.special_ids))

    deltas = [choice.feed([token_id], None) for token_id in tokenizer.encode("Hello 漢 🙂")]

    assert "".join(delta.text for delta in deltas) == " Hello 漢 🙂"


def test_an_ordinary_token_that_ends_sequences_has_no_text() -> None:
    choice = ChoiceText(ChunkTokenizer([b"a", b"."]), TextRules(silent_ids=frozenset({1})))

    delta = choice.feed([0, 1], None)

    assert (delta.text, delta.token_ids) == ("a", (0, 1))


def test_a_token_of_a_padded_vocabulary_has_no_text(tmp_path: Path) -> None:
    write_tiny_tokenizer(tmp_path)
    choice = ChoiceText(Tokenizer.load(tmp_path), TextRules(silent_ids=SPECIAL_IDS))

    delta = choice.feed([263], some_scores(-1.0))

    assert (delta.text, delta.token_ids, delta.logprobs[0].token_bytes) == ("", (263,), b"")


def test_feeding_after_the_end_is_our_own_mistake() -> None:
    choice = ChoiceText(ChunkTokenizer([b"a", b"b"]), TextRules(stop=("a",)))
    choice.feed([0], None)

    with pytest.raises(AssertionError, match="after its end"):
        choice.feed([1], None)


def test_flushing_twice_is_our_own_mistake() -> None:
    choice = ChoiceText(ChunkTokenizer([]), TextRules())
    choice.flush()

    with pytest.raises(AssertionError, match="ended twice"):
        choice.flush()


def shown(tokens: Sequence[bytes], *, specials: frozenset[int] = frozenset(), **sampling: object) -> str:
    """The text of a choice that got all of `tokens`, of which the last is an end of sequence."""
    eos_ids = frozenset({len(tokens) - 1})
    asked = SamplingParams(**{"max_tokens": 99, "seed": 0, **sampling})
    choice = ChoiceText(ChunkTokenizer(tokens), TextRules.of(asked, specials, eos_ids))
    delta = choice.feed(range(len(tokens)), None)
    return delta.text if delta.is_stopped else delta.text + choice.flush().text


@pytest.mark.parametrize(
    ("sampling", "text"),
    [
        ({}, "ab"),
        ({"skip_special_tokens": False}, "a<s> <t>b"),
        ({"shown_special_ids": (2,)}, "a<t>b"),
        ({"skip_special_tokens": False, "spaces_between_special_tokens": False}, "a<s><t>b"),
        ({"skip_special_tokens": False, "include_stop": True}, "a<s> <t>b<e>"),
        ({"skip_special_tokens": False, "ignore_eos": True}, "a<s> <t>b<e>"),
        ({"include_stop": True}, "ab"),
    ],
    ids=str,
)
def test_special_tokens_are_shown_as_asked(sampling: dict[str, object], text: str) -> None:
    assert shown([b"a", b"<s>", b"<t>", b"b", b"<e>"], specials=frozenset({1, 2}), **sampling) == text


@pytest.mark.parametrize(("include_stop", "text"), [(False, "one"), (True, "one.")])
def test_the_text_of_a_stop_token_is_shown_only_if_asked_for(include_stop: bool, text: str) -> None:
    assert shown([b"one", b".", b""], stop_token_ids=(1,), include_stop=include_stop) == text


@pytest.mark.parametrize(("include_stop", "text"), [(False, "one"), (True, "oneEND")])
def test_a_stop_string_is_shown_only_if_asked_for(include_stop: bool, text: str) -> None:
    assert shown([b"oneE", b"NDx", b"y", b""], stop=("END",), include_stop=include_stop) == text


@pytest.mark.parametrize(("min_tokens", "text"), [(0, "a"), (1, "a"), (2, "a.b"), (4, "a.b.c")])
def test_stop_strings_are_looked_for_behind_min_tokens(min_tokens: int, text: str) -> None:
    assert shown([b"a", b".", b"b", b".", b"c.d", b""], stop=(".",), min_tokens=min_tokens) == text


@pytest.mark.parametrize(
    ("pieces", "stop", "min_tokens", "text"),
    [
        pytest.param([b"a<", b"e", b"nd>b"], "<end>", 1, "a", id="begun in the first"),
        pytest.param([b"<", b"end", b">", b"b"], "<end>", 2, "", id="begun with the first, nothing shown"),
        pytest.param([b"<e", b"nd>", b"b<", b"end>c"], "<end>", 2, "<end>b", id="found the second time"),
        pytest.param([b"x", b"aa", b"a", b"b"], "aa", 2, "xa", id="that overlaps one too early"),
    ],
)
def test_a_stop_string_is_found_that_is_complete_behind_min_tokens(pieces, stop, min_tokens, text) -> None:
    assert shown([*pieces, b""], stop=(stop,), min_tokens=min_tokens) == text


def test_an_ignored_stop_string_is_not_held_back() -> None:
    matcher = StopMatcher(("abc", "cd"))

    assert matcher.feed("xabc", is_ignored=True) is None
    assert matcher.num_held == 1
    assert matcher.feed("d") == (1, 2)
