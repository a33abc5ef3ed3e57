import pytest

from server.tools.formats import JSON, LLAMA3
from tests.support.call_texts import called, parsed, said

CALL = '{"name": "add", "parameters": {"a": 1}}'
READ = ("add", '{"a": 1}')


@pytest.mark.parametrize(
    ("text", "calls", "words"),
    [
        (CALL, [READ], ""),
        (f"<|python_tag|>{CALL}", [READ], ""),
        (f"{CALL}; {CALL}", [READ, READ], ""),
        (f"Sure:\n  {CALL}", [READ], "Sure:"),
        (f'{{"type": "function", {CALL[1:]}', [READ], ""),
        (f"[{CALL}, {CALL}]", [READ, READ], ""),
        (f"The call {CALL}", [], f"The call {CALL}"),
        ("<|python_tag|>print(1)", [], "<|python_tag|>print(1)"),
        ('{"name": "add"}', [], '{"name": "add"}'),
        ('{"answer": 42}', [], '{"answer": 42}'),
        ("[1, 2]", [], "[1, 2]"),
    ],
    ids=[
        "object",
        "tagged",
        "two",
        "on a line of its own",
        "with its type",
        "list",
        "in mid sentence",
        "python",
        "no arguments",
        "other object",
        "other list",
    ],
)
def test_an_answer_is_taken_apart(text, calls, words):
    pieces = parsed(LLAMA3, list(text))

    assert (called(pieces), said(pieces)) == (calls, words)


def test_the_general_format_knows_no_tag():
    text = f"<|python_tag|>{CALL}"

    assert said(parsed(JSON, list(text))) == text
