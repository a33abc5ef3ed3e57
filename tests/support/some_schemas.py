"""JSON schemas out of thin air, whose answers are short: bounded numbers, strings, arrays and objects."""

import json
from collections.abc import Iterator

import jsonschema
from hypothesis import strategies as st

NAMES = ("a", "b c", "é", 'q"', "long_name", "0")
PATTERNS = ("^[a-c]{1,3}$", "x[0-9]?y", "^(ab|ba)+$", "^[^a-z]{0,2}$", "^\\d{2}-\\w$")
FORMATS = ("date", "ipv4", "uuid", "time")
CONSTANTS = st.sampled_from(
    [None, True, False, 0, -7, 2.5, "", "é\n", 'a"b\\', [], [1, "x"], {}, {"k": [None]}]
)


def integers():
    low = st.integers(-50, 50)
    bounds = st.tuples(low, st.integers(0, 1000)).map(lambda pair: {"minimum": pair[0], "maximum": sum(pair)})
    exclusive = low.map(lambda value: {"exclusiveMinimum": value, "exclusiveMaximum": value + 9})
    multiple = st.sampled_from([2, 5]).map(lambda step: {"multipleOf": step, "minimum": 0, "maximum": 40})
    return (bounds | exclusive | multiple).map(lambda own: {"type": "integer", **own})


def strings():
    lengths = st.integers(0, 5).flatmap(
        lambda low: st.integers(low, 6).map(lambda high: {"minLength": low, "maxLength": high})
    )
    patterns = st.sampled_from(PATTERNS).map(lambda pattern: {"pattern": pattern, "maxLength": 8})
    formats = st.sampled_from(FORMATS).map(lambda name: {"format": name})
    return (lengths | patterns | formats).map(lambda own: {"type": "string", **own})


def arrays(inner):
    plain = st.tuples(inner, st.integers(0, 2), st.integers(0, 2)).map(
        lambda drawn: {"items": drawn[0], "minItems": drawn[1], "maxItems": sum(drawn[1:])}
    )
    prefixed = st.lists(inner, min_size=1, max_size=3).map(
        lambda kinds: {"prefixItems": kinds, "items": False, "minItems": 1}
    )
    return (plain | prefixed).map(lambda own: {"type": "array", **own})


@st.composite
def objects(draw, inner):
    names = draw(st.lists(st.sampled_from(NAMES), max_size=3, unique=True))
    schema = {
        "type": "object",
        "properties": {name: draw(inner) for name in names},
        "required": [name for name in names if draw(st.booleans())],
        "additionalProperties": draw(
            st.sampled_from([False, False, {"type": "integer", "minimum": 0, "maximum": 9}])
        ),
    }
    if draw(st.booleans()):
        schema["patternProperties"] = {"^z[0-9]$": draw(inner)}
        schema["maxProperties"] = len(names) + 2
        if names != schema["required"]:
            del schema["maxProperties"]
            del schema["patternProperties"]
    return schema


def schemas():
    """Any of them, nested a few levels deep; some refer to themselves."""
    leaves = (
        st.sampled_from([{"type": "null"}, {"type": "boolean"}, {"type": ["boolean", "null"]}])
        | integers()
        | strings()
        | CONSTANTS.map(lambda value: {"const": value})
        | st.lists(CONSTANTS, min_size=1, max_size=4).map(lambda values: {"enum": values})
    )

    def larger(inner):
        unions = st.lists(inner, min_size=1, max_size=3).map(lambda kinds: {"anyOf": kinds})
        return arrays(inner) | objects(inner) | unions

    nested = st.recursive(leaves, larger, max_leaves=5)
    return nested | nested.map(referred) | leaves.map(recursive)


def referred(schema):
    """The same by reference, twice."""
    pair = {"x": {"$ref": "#/$defs/one"}, "y": {"$ref": "#/$defs/one"}}
    return {
        "$defs": {"one": schema},
        "type": "object",
        "properties": pair,
        "required": ["y"],
        "additionalProperties": False,
    }


def recursive(leaf):
    """A list of leaves, linked."""
    node = {
        "type": "object",
        "properties": {"value": leaf, "next": {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/node"}]}},
        "required": ["value", "next"],
        "additionalProperties": False,
    }
    return {"$defs": {"node": node}, "$ref": "#/$defs/node"}


def complaints(text: str, schema: dict[str, object]) -> Iterator[str]:
    """What is wrong with an answer."""
    try:
        value = json.loads(text)
    except ValueError as error:
        yield f"{text!r} is no JSON: {error}"
        return
    checker = jsonschema.FormatChecker(["date", "ipv4", "uuid"])
    for error in jsonschema.Draft202012Validator(schema, format_checker=checker).iter_errors(value):
        yield f"{text!r} does not follow {schema}: {error.message}"
