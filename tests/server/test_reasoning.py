import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.reasoning import MISTRAL, THINK, ReasoningParser, choose_tags, is_closed, is_open
from server.tools.pieces import Piece, Said, Thought, joined

SCRAPS = ("<think>", "</think>", "<think", "</", ">", "\n", " ", "a", "é", "<tool_call>")


def read(parts, *, is_inside: bool = False) -> list[Piece]:
    parser = ReasoningParser(THINK, is_inside=is_inside)
    pieces = [piece for part in parts for piece in parser.feed(part)]
    return joined(pieces + parser.finish())


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("<think>\nHm.\n</think>\n\nYes.", [Thought("Hm."), Said("Yes.")]),
        (" <think>a b</think>c d ", [Thought("a b"), Said("c d ")]),
        ("<think>\n\n</think>\n\nYes.", [Said("Yes.")]),
        ("<think>Hm. </thi", [Thought("Hm. </thi")]),
        ("<think>Hm.\n", [Thought("Hm.\n")]),
        ("Yes <think>no</think>", [Said("Yes <think>no</think>")]),
        ("<think>a</think>b<think>c</think>", [Thought("a"), Said("b<think>c</think>")]),
        ("  <thin", [Said("  <thin")]),
        ("", []),
    ],
    ids=[
        "block",
        "on one line",
        "empty block",
        "never closed",
        "ends with a blank",
        "later mark",
        "second block",
        "nearly a mark",
        "nothing",
    ],
)
def test_a_block_is_told_apart(text, pieces):
    assert read([text]) == pieces
    assert read(list(text)) == pieces


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        ("Hm.</think>Yes.", [Thought("Hm."), Said("Yes.")]),
        ("<think>Hm.</think>Yes.", [Thought("Hm."), Said("Yes.")]),
        ("Hm.", [Thought("Hm.")]),
        ("</think>Yes.", [Said("Yes.")]),
    ],
)
def test_the_prompt_may_have_opened_it(text, pieces):
    assert read([text], is_inside=True) == read(list(text), is_inside=True) == pieces


@settings(max_examples=100)
@given(
    text=st.lists(st.sampled_from(SCRAPS), max_size=12).map("".join),
    cut=st.integers(0, 50),
    is_inside=st.booleans(),
)
def test_cutting_a_text_anywhere_changes_nothing(text, cut, is_inside):
    whole = read([text], is_inside=is_inside)

    assert read([text[:cut], text[cut:]], is_inside=is_inside) == whole
    assert read(list(text), is_inside=is_inside) == whole


@settings(max_examples=100)
@given(text=st.lists(st.sampled_from(SCRAPS[2:]), max_size=12).map("".join))
def test_text_without_a_block_comes_back_to_the_letter(text):
    if not text.lstrip().startswith("<think>"):
        assert read(list(text)) == ([Said(text)] if text else [])


def test_a_thought_is_not_held_back_without_need():
    parser = ReasoningParser(THINK, is_inside=True)

    assert [parser.feed(part) for part in ("a ", "b", "<", "c")] == [
        [Thought("a")],
        [Thought(" b")],
        [],
        [Thought("<c")],
    ]


@pytest.mark.parametrize(
    ("setting", "template", "tags"),
    [
        ("auto", "{{ content.split('</think>') }}", THINK),
        ("auto", "{{ '[THINK]' }}{{ '[/THINK]' }}", MISTRAL),
        ("auto", "{{ messages }}", None),
        ("none", "</think>", None),
        ("think", "", THINK),
    ],
)
def test_a_setting_or_the_template_tells_the_tags(setting, template, tags):
    assert choose_tags(setting, template) is tags


def test_the_end_of_a_prompt_tells_where_an_answer_begins():
    assert is_open(THINK, "<|assistant|><think>\n")
    assert not is_open(THINK, "<|assistant|><think>\n\n</think>\n\n")
    assert is_closed(THINK, "<|assistant|><think>\n\n</think>\n\n")
    assert not is_closed(THINK, "<|assistant|>")
