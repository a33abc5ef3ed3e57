"""Every rule is tried out with the library itself: texts that it takes, and texts that it does not."""

import json

import llguidance
import pytest

from engine import RequestError
from server.schemas.constraint import MAX_DEPTH, ConstrainedBody
from server.schemas.tools import ToolBody
from server.translate.call_plan import plan_calls
from server.translate.constraint import (
    ANY_TEXT,
    MAX_SCHEMA_CHARS,
    body_grammar,
    choice_rule,
    json_rule,
    lark_rule,
    reading_work,
    refuse_unenforced,
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


def grammar_of(**fields):
    return body_grammar(ConstrainedBody.model_validate(fields))


def format_of(schema, **more):
    return {"type": "json_schema", "json_schema": {"name": "n", "schema": schema, **more}}


INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("fields", "good", "bad"),
    [
        ({"response_format": {"type": "json_object"}}, '{"a": [1]}', "[1]"),
        ({"response_format": format_of(INTEGER, strict=True)}, "12", "1.5"),
        ({"response_format": {"type": "json_schema", "json_schema": {"name": "n"}}}, "[1]", "x"),
        ({"guided_json": INTEGER}, "12", "1.5"),
        ({"guided_json": json.dumps(INTEGER)}, "12", "1.5"),
        ({"guided_json": True}, "[1]", "x"),
        ({"guided_regex": "a+"}, "aa", "b"),
        ({"guided_choice": ["a", "ab"]}, "ab", "b"),
        ({"guided_grammar": 'start: "a" b\nb: "b"*'}, "abb", "b"),
        ({"guided_grammar": 'root ::= "a" b\nb ::= "b"*'}, "abb", "b"),
        ({"structured_outputs": {"json": INTEGER}}, "12", "1.5"),
        ({"structured_outputs": {"regex": "a+"}}, "aa", "b"),
        ({"structured_outputs": {"choice": ["a", "ab"]}}, "ab", "b"),
        ({"structured_outputs": {"grammar": 'start: "a"'}}, "a", "b"),
        ({"structured_outputs": {"json_object": True}}, '{"a": 1}', "[1]"),
        (
            {"structured_outputs": {"json_object": True, "disable_any_whitespace": True}},
            '{"a":1}',
            '{"a": 1}',
        ),
        (
            {"structured_outputs": {"json": {"type": "array"}, "disable_any_whitespace": True}},
            "[1,2]",
            "[1, 2]",
        ),
    ],
    ids=lambda value: ascii(value)[:50] if isinstance(value, dict) else "",
)
def test_each_field_asks_for_its_kind_of_answer(fields, good, bad):
    grammar = grammar_of(**fields)

    assert takes(grammar, good)
    assert not takes(grammar, bad)


@pytest.mark.parametrize("fields", [{}, {"response_format": {"type": "text"}}])
def test_a_free_answer_has_no_grammar(fields):
    assert grammar_of(**fields) == ""


def test_without_strict_what_cannot_be_enforced_is_passed_over():
    schema = {"type": "integer", "not": {"const": 5}}

    assert takes(grammar_of(response_format=format_of(schema)), "5")
    assert takes(grammar_of(response_format=format_of(schema, strict=False)), "5")


@pytest.mark.parametrize(
    "fields",
    [{"response_format": format_of({"not": {}}, strict=True)}, {"guided_json": {"not": {}}}],
    ids=["strict", "guided"],
)
def test_else_it_cannot_be_compiled(fields):
    said = llguidance.LLMatcher.validate_grammar(grammar_of(**fields))

    assert 'Unimplemented keys: ["not"]' in said


@pytest.mark.parametrize(
    ("param", "value"),
    [
        ("guided_json", "{"),
        ("guided_json", "[" * 100_00),
        ("guided_json", "5"),
        ("guided_json", {"enum": ["x" * MAX_SCHEMA_CHARS]}),
        ("guided_grammar", "root ::= ("),
        ("guided_grammar", "a ::= b"),
        ("structured_outputs", {"json": "{"}),
    ],
    ids=lambda value: ascii(value)[:30],
)
def test_what_is_no_schema_or_grammar_is_refused_by_its_field(param, value):
    with pytest.raises(RequestError) as caught:
        grammar_of(**{param: value})

    assert caught.value.param == param


@pytest.mark.parametrize(
    ("schema", "path"),
    [
        ({"minProperties": 2}, "#"),
        ({"properties": {"a": {"items": {"minProperties": 3, "required": ["x"]}}}}, "#/properties/a/items"),
        ({"anyOf": [{}, {"minProperties": 2}]}, "#/anyOf/1"),
        ({"$defs": {"d": {"minProperties": 2}}}, "#/$defs/d"),
    ],
)
def test_a_bound_that_would_be_counted_wrong_is_refused_with_its_path(schema, path):
    for fields in ({"guided_json": schema}, {"response_format": format_of(schema, strict=True)}):
        with pytest.raises(RequestError) as caught:
            grammar_of(**fields)

        assert "minProperties" in caught.value.message
        assert f" at {path}, " in caught.value.message


@pytest.mark.parametrize(
    "schema",
    [
        {"minProperties": 1},
        {"minProperties": 2, "required": ["a"], "properties": {"a": {}}},
        {"properties": {"minProperties": {"const": 5}}},
        {"const": {"minProperties": 5}},
    ],
)
def test_what_only_looks_like_such_a_bound_is_taken(schema):
    assert grammar_of(guided_json=schema)


def test_no_further_property_takes_the_name_of_a_known_one_by_another_spelling():
    grammar = grammar_of(guided_json={"type": "object", "properties": {"a": {"type": "integer"}}})

    assert takes(grammar, '{"b": 1}')
    assert not takes(grammar, '{"b": 1, "a": "x"}')
    assert not takes(grammar, r'{"b": 1, "\u0061": "x"}')


def test_control_characters_of_a_schemas_own_can_be_written():
    assert takes(grammar_of(guided_json={"enum": ["\x01", "b"]}), r'"\u0001"')


def test_a_schema_is_searched_once_however_deep_it_is():
    depth = 200
    schema = {"minProperties": 2}
    for _ in range(depth):
        schema = {"items": schema}

    with pytest.raises(RequestError) as caught:
        refuse_unenforced(schema, "guided_json")
    assert f" at #{'/items' * depth}, " in caught.value.message


@pytest.mark.parametrize("form", [dict, json.dumps], ids=["object", "text"])
def test_a_schema_has_a_greatest_depth(form):
    def nested(depth):
        schema = {"type": "object"}
        for _ in range((depth - 1) // 2):
            schema = {"anyOf": [schema]}
        return ConstrainedBody(guided_json=form(schema))

    body_grammar(nested(MAX_DEPTH - 1))
    with pytest.raises(
        RequestError, match=f"nested {MAX_DEPTH + 1} levels deep; at most {MAX_DEPTH}"
    ) as caught:
        body_grammar(nested(MAX_DEPTH + 1))

    assert caught.value.param == "guided_json"


def test_gbnf_whose_translation_would_take_long_is_refused_before_it_is_begun():
    rules = "".join(f'a{i} ::= "x" a{i + 1}\n' for i in range(900))

    with pytest.raises(RequestError, match=r"901 rules in 1.* characters; .* write it in Lark") as caught:
        body_grammar(ConstrainedBody(guided_grammar=f"root ::= a0\n{rules}"))

    assert caught.value.param == "guided_grammar"
    assert "start" in body_grammar(ConstrainedBody(guided_grammar='root ::= "x" | root "y"'))


def test_only_a_body_that_needs_a_grammar_has_one_to_be_written():
    tools = {"tools": [{"type": "function", "function": {"name": "f"}}]}

    assert reading_work(ConstrainedBody()) == 0
    assert reading_work(ConstrainedBody(), plan_calls(ToolBody.model_validate(tools))) == 0
    assert reading_work(ConstrainedBody(guided_regex="a")) > 0
    assert (
        reading_work(
            ConstrainedBody(), plan_calls(ToolBody.model_validate({**tools, "tool_choice": "required"}))
        )
        > 0
    )


@pytest.mark.parametrize(
    ("keyword", "is_schema"),
    [("const", False), ("default", False), ("properties", True)],
)
def test_a_value_in_a_schema_is_not_read_as_one(keyword, is_schema):
    schema = {keyword: {"a": {"minProperties": 5}}}

    if is_schema:
        with pytest.raises(RequestError):
            refuse_unenforced(schema, "guided_json")
    else:
        refuse_unenforced(schema, "guided_json")
