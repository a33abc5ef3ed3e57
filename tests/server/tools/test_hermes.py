import pytest

from server.tools.formats import HERMES
from tests.support.call_texts import called, parsed, said


@pytest.mark.parametrize(
    ("text", "calls", "words"),
    [
        ('<tool_call>{"name": "add"}</tool_call>', [("add", "{}")], ""),
        ('<tool_call>{"name": "add", "arguments": {"a": 1}}', [("add", '{"a": 1}')], ""),
        ('<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>', [("add", '{"a": 1}')], ""),
        ('<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>', [("add", '{"a": 1}')], ""),
        ('<tool_call><tool_call>{"name": "add"}</tool_call>', [("add", "{}")], "<tool_call>"),
        (
            '<tool_call>no</tool_call> <tool_call>{"name": "add"}',
            [("add", "{}")],
            "<tool_call>no</tool_call>",
        ),
        ('<tool_call>{"name": "add"}</tool_call> Done. ', [("add", "{}")], " Done. "),
        (
            '<tool_call>{"name": "add", "mood": 1}</tool_call>',
            [],
            '<tool_call>{"name": "add", "mood": 1}</tool_call>',
        ),
        ("1 < 2 <tool_", [], "1 < 2 <tool_"),
        ("", [], ""),
    ],
    ids=[
        "no arguments",
        "not closed",
        "arguments first",
        "arguments as a string",
        "opened twice",
        "one malformed",
        "text behind",
        "unknown member",
        "nearly a marker",
        "nothing",
    ],
)
def test_an_answer_is_taken_apart(text, calls, words):
    pieces = parsed(HERMES, list(text))

    assert (called(pieces), said(pieces)) == (calls, words)


def test_white_space_around_calls_is_not_text():
    text = ' \n<tool_call>\n{"name": "add"}\n</tool_call>\n\n<tool_call>\n{"name": "add"}\n</tool_call>\n'
    pieces = parsed(HERMES, list(text))

    assert (len(called(pieces)), said(pieces)) == (2, "")
