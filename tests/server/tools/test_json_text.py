import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.tools.feed import Feed
from server.tools.json_text import MAX_DEPTH, JsonScanner, read_string, read_value

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


def num_taken(text: str) -> int:
    """How many characters belong to the value that `text` begins with."""
    scanner = JsonScanner()
    for index, character in enumerate(text):
        if scanner.is_complete or not scanner.take(character):
            return index
    return len(text)


def result_of(reading):
    with pytest.raises(StopIteration) as ended:
        next(reading)
    return ended.value.value


def feed_of(text: str) -> Feed:
    feed = Feed()
    feed.add(text)
    feed.is_over = True
    return feed


@given(st.lists(VALUES) | st.dictionaries(st.text(), VALUES), st.sampled_from((None, 2)))
def test_every_json_text_is_taken_to_its_end(value, indent):
    text = json.dumps(value, indent=indent)

    assert num_taken(text + " more") == len(text)


@given(st.text(alphabet='{}[]",:\\ue1.-+0tfnrul \n', max_size=12))
def test_what_is_taken_as_complete_is_json(text):
    scanner = JsonScanner()
    if all(scanner.take(character) for character in "[" + text) and scanner.is_complete:
        json.loads("[" + text, strict=False)


@pytest.mark.parametrize(
    ("text", "num"),
    [
        ('{"a" 1}', 5),
        ("{a: 1}", 1),
        ("[1,]", 3),
        ("[01]", 2),
        ("[1.e5]", 3),
        ("[truth]", 4),
        ('["\\x"]', 3),
        ('["\\u12g4"]', 6),
        ('{"a": 1,}', 8),
        ("[1}", 2),
        ("1", 0),
    ],
)
def test_the_first_wrong_character_is_found(text, num):
    assert num_taken(text) == num


def test_depth_has_a_bound():
    assert num_taken("[" * (MAX_DEPTH + 1)) == MAX_DEPTH


def test_control_characters_in_strings_are_escaped():
    taken: list[str] = []
    assert result_of(read_value(feed_of('{"a": "x\n\ty"} more'), taken.append))

    assert "".join(taken) == '{"a": "x\\n\\ty"}'


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('"a\\"b" c', 'a"b'),
        ('"\\\\"', "\\"),
        ('"\\u00e9"', "é"),
        ('"\\x"', None),
        ("a", None),
        ('"a', None),
        ('"' + "a" * 2000 + '"', None),
    ],
)
def test_a_string_is_read_or_there_is_none(text, value):
    assert result_of(read_string(feed_of(text))) == value
