"""Every rule is tried out with the library itself: texts that it takes, and texts that it does not."""

import json

import llguidance
import pytest

from server.translate.constraint import (
    ANY_TEXT,
    choice_rule,
    json_rule,
    lark_rule,
    regex_rule,
    text_rule,
    to_grammar,
)

BYTES = llguidance.LLTokenizer("byte")
THOUGHT = {'thought[suffix="</think>"]': ANY_TEXT}


def takes(grammar, text):
    """Whether `text` is all that the grammar asks for."""
    matcher = llguidance.LLMatcher(BYTES, llguidance.LLMatcher.grammar_from_lark(grammar))
    assert not matcher.is_error(), matcher.get_error()
    given = list(text.encode())
    return matcher.try_consume_tokens(given) == len(given) and matcher.is_accepting()


@pytest.mark.parametrize(
    "text", ['{"a":1}', '{"a": 1}', '{\n    "a": 1\n}'], ids=["tight", "spaced", "indented"]
)
def test_a_schema_takes_json_in_the_usual_layouts(text):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    assert takes(to_grammar(json_rule(schema)), text)


@pytest.mark.parametrize("text", ['{"a":"x"}', "{}", '{"a":  1}', ' {"a":1}', '{\n\n"a":1}'])
def test_a_schema_refuses_other_json_and_whitespace_without_end(text):
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}

    assert not takes(to_grammar(json_rule(schema)), text)


def test_the_schema_true_takes_any_json():
    assert takes(to_grammar(json_rule(True)), json.dumps([1, {"a": None}]))


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("[0-9]{3}", "123"),
        ("^ab$", "ab"),
        ("a/b", "a/b"),
        (r"a\/b", "a/b"),
        ("a\nb", "a\nb"),
        (r"\\/", "\\/"),
    ],
)
def test_a_pattern_matches_the_whole_text(pattern, text):
    grammar = to_grammar(regex_rule(pattern))

    assert takes(grammar, text)
    assert not takes(grammar, f"{text}!")


def test_a_choice_is_one_of_its_texts():
    choices = ['a"b', "é\n😀", "/"]

    assert [takes(to_grammar(choice_rule(choices)), text) for text in [*choices, "b"]] == [True] * 3 + [False]


def test_a_foreign_grammar_keeps_its_own_names():
    grammar = to_grammar(lark_rule('start: answer "}"\nanswer: "a" | "b"'))

    assert takes(grammar, "b}")


@pytest.mark.parametrize(
    "rule",
    [
        json_rule({"const": 1}),
        regex_rule("1"),
        choice_rule(["1", "2"]),
        text_rule("1"),
        lark_rule('start: "1"'),
    ],
    ids=["json", "regex", "choice", "text", "lark"],
)
def test_any_rule_may_stand_behind_another(rule):
    grammar = to_grammar(rule, before="thought", rules=THOUGHT)

    assert takes(grammar, "what is 3 - 2?</think>1")
    assert not takes(grammar, "1")
