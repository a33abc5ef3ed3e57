import json
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.tools.call_parser import CallParser
from server.tools.formats import HERMES
from server.tools.pieces import CallArguments, CallBegun, Said
from tests.support.call_texts import CALLS, FORMATS, NAMES, called, parsed, said

EVERY_FORMAT = pytest.mark.parametrize("tool_format", FORMATS.values(), ids=FORMATS)
SCRAPS = (
    "<tool_call>",
    "</tool_call>",
    "[TOOL_CALLS]",
    "[ARGS]",
    "[CALL_ID]",
    "<|python_tag|>",
    '{"name": "add", "arguments": {"a": 1}}',
    '{"name": "add", "parameters": ',
    '{"arguments": "{}", "name": "add"}',
    '"name"',
    "add",
    "get_weather",
    "nobody",
    "{",
    "}",
    "[",
    "]",
    '"',
    "\\",
    ":",
    ",",
    ";",
    "\n",
    " ",
    "é🙂",
    "tru",
    "true",
    "-1.5",
    "<tool",
    "[TOOL",
)
GARBAGE = st.lists(st.sampled_from(SCRAPS), max_size=14).map("".join)


@EVERY_FORMAT
def test_cutting_a_text_anywhere_changes_nothing(tool_format):
    text = f"Let me see.\n{tool_format.spell(CALLS)}"
    whole = parsed(tool_format, [text])

    assert called(whole) == list(CALLS)
    for cut in range(len(text) + 1):
        assert parsed(tool_format, [text[:cut], text[cut:]]) == whole
    assert parsed(tool_format, list(text)) == whole


@EVERY_FORMAT
@settings(max_examples=50)
@given(text=GARBAGE, cuts=st.lists(st.integers(0, 60), max_size=4))
def test_garbage_is_read_the_same_however_it_is_cut(tool_format, text, cuts):
    bounds = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    parts = [text[start:stop] for start, stop in pairwise(bounds)]

    assert parsed(tool_format, parts) == parsed(tool_format, [text]) == parsed(tool_format, list(text))


@EVERY_FORMAT
@settings(max_examples=50)
@given(text=GARBAGE)
def test_text_without_a_call_comes_back_to_the_letter(tool_format, text):
    pieces = parsed(tool_format, list(text))

    if not called(pieces):
        assert said(pieces) == text


@EVERY_FORMAT
@settings(max_examples=30)
@given(
    arguments=st.dictionaries(
        st.text(max_size=5),
        st.recursive(
            st.none()
            | st.booleans()
            | st.floats(allow_nan=False, allow_infinity=False)
            | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        max_size=4,
    ),
    is_ascii=st.booleans(),
)
def test_any_arguments_are_read_as_they_were_written(tool_format, arguments, is_ascii):
    written = json.dumps(arguments, ensure_ascii=is_ascii)
    pieces = parsed(tool_format, list("Yes.\n" + tool_format.spell([("add", written)] * 2)))

    assert called(pieces) == [("add", written)] * 2
    assert said(pieces) == "Yes."


@EVERY_FORMAT
def test_a_call_of_a_function_that_nobody_declared_is_text(tool_format):
    text = tool_format.spell([("rm", '{"path": "/"}')])

    assert parsed(tool_format, list(text)) == [Said(text)]


@EVERY_FORMAT
def test_a_text_that_stops_before_the_arguments_is_text(tool_format):
    spelled = tool_format.spell([("add", '{"a": 1}')])
    text = spelled[: spelled.index('{"a"')]

    assert parsed(tool_format, list(text)) == [Said(text)]


@EVERY_FORMAT
def test_a_text_that_stops_in_the_arguments_keeps_the_call(tool_format):
    spelled = tool_format.spell([("add", '{"a": 1}')])
    pieces = parsed(tool_format, list(spelled[: spelled.index("1}")]))

    assert pieces == [CallBegun(0, "add"), CallArguments(0, '{"a": ')]


def test_arguments_are_told_as_they_arrive():
    parser = CallParser(HERMES.read, NAMES)
    told = [parser.feed(part) for part in ('<tool_call>{"name": "add", "arg', 'uments": {"a"', ": 1", "}}")]

    assert told == [
        [],
        [CallBegun(0, "add"), CallArguments(0, '{"a"')],
        [CallArguments(0, ": 1")],
        [CallArguments(0, "}")],
    ]


def test_text_is_not_held_back_without_need():
    parser = CallParser(HERMES.read, NAMES)

    assert [parser.feed(part) for part in ("a", "b <", "c", " d")] == [
        [Said("a")],
        [Said("b")],
        [Said(" <c")],
        [Said(" d")],
    ]


def test_arguments_that_are_no_json_end_the_call_where_they_break():
    parser = CallParser(HERMES.read, NAMES)
    pieces = parser.feed('<tool_call>{"name": "add", "arguments": {"a": tru}}</tool_call>') + parser.finish()

    assert pieces == [CallBegun(0, "add"), CallArguments(0, '{"a": tru'), Said("}}</tool_call>")]
    assert (parser.num_calls, parser.is_broken) == (1, True)
