import pytest

from server.tools.formats import MISTRAL
from tests.support.call_texts import called, parsed, said


@pytest.mark.parametrize(
    ("text", "calls", "words"),
    [
        ('[TOOL_CALLS] [{"name": "add", "arguments": {"a": 1}}]', [("add", '{"a": 1}')], ""),
        (
            '[TOOL_CALLS][{"name": "add", "arguments": {}}, {"arguments": {}, "name": "add"}]',
            [("add", "{}"), ("add", "{}")],
            "",
        ),
        ('[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]add[ARGS]{}', [("add", '{"a": 1}'), ("add", "{}")], ""),
        ('[TOOL_CALLS]add[CALL_ID]a1b2c3d4e[ARGS]{"a": 1}', [("add", '{"a": 1}')], ""),
        ('[TOOL_CALLS]add{"a": 1}', [("add", '{"a": 1}')], ""),
        ('Sure. [TOOL_CALLS] [{"name": "add", "arguments": {}}', [("add", "{}")], "Sure."),
        ('[TOOL_CALLS] [{"name": "add", "arguments": {}}, 7]', [("add", "{}")], ", 7]"),
        ("[TOOL_CALLS] nothing", [], "[TOOL_CALLS] nothing"),
        ("[TOOL_CALLS]add[ARGS] no", [], "[TOOL_CALLS]add[ARGS] no"),
    ],
    ids=[
        "list",
        "list of two",
        "by name",
        "with an id",
        "without its special tokens",
        "list not closed",
        "list with something else",
        "nothing",
        "no arguments",
    ],
)
def test_an_answer_is_taken_apart(text, calls, words):
    pieces = parsed(MISTRAL, list(text))

    assert (called(pieces), said(pieces)) == (calls, words)
