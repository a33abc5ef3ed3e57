import json

import pytest

from engine.structured.blame import MAX_TRIALS, blamed_path


def complaint(grammar):
    """Everything with "bad" in it is wrong, but for what is never referred to."""
    schema = json.loads(grammar.removeprefix("start: %json "))
    applied = {key: value for key, value in schema.items() if key not in ("$defs", "definitions")}
    text = json.dumps(applied)
    for name, inner in schema.get("$defs", {}).items():
        if f"#/$defs/{name}" in text:
            text += json.dumps(inner)
    if "#/properties" in text and "properties" not in applied:
        return "Pointer '/properties/x' does not exist"
    return "it is bad" if '"bad"' in text else ""


def path(schema):
    return blamed_path(f"start: before answer\nanswer: %json {json.dumps(schema)}\n", complaint)


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"bad": 1}, "#"),
        ({"properties": {"a": {}, "b": {"items": {"bad": 1}}}}, "#/properties/b/items"),
        ({"properties": {"a/b~c": {"bad": 1}}}, "#/properties/a~1b~0c"),
        ({"anyOf": [{}, {"allOf": [{"bad": 1}]}]}, "#/anyOf/1/allOf/0"),
        ({"prefixItems": [{"bad": 1}]}, "#/prefixItems/0"),
        ({"additionalProperties": {"bad": 1}}, "#/additionalProperties"),
        ({"$defs": {"d": {"items": {"bad": 1}}}, "items": {"$ref": "#/$defs/d"}}, "#/$defs/d/items"),
        ({"$defs": {"d": {"bad": 1}}, "items": {"bad": 2}}, "#/items"),
        ({"properties": {"a": {"$ref": "#/properties/x"}, "b": {"bad": 1}}}, "#/properties/b"),
    ],
    ids=["root", "nested", "escaped", "listed", "prefix", "other", "referred", "unused", "elsewhere"],
)
def test_the_smallest_wrong_schema_is_blamed(schema, expected):
    assert path(schema) == expected


def test_a_grammar_without_a_wrong_schema_blames_none():
    assert path({"properties": {"a": {}}}) is None
    assert blamed_path('start: x\nx: "%json {"', complaint) is None


def test_the_number_of_trials_is_bounded():
    tried = []

    def counting(grammar):
        tried.append(grammar)
        return complaint(grammar)

    wide = {"properties": {str(index): {} for index in range(1000)}, "bad": 1}
    assert blamed_path(f"start: %json {json.dumps(wide)}", counting) == "#"
    assert len(tried) == MAX_TRIALS
