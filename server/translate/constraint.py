"""What an answer must look like, as one grammar in llguidance's dialect of Lark.

A *rule* is text that may stand on the right side of a grammar's rule: a JSON schema, a regular
expression, a choice of texts, another grammar. `to_grammar` makes a whole grammar of one. Pure functions;
whether a grammar can be compiled, the engine says.

    to_grammar(json_rule({"type": "integer"}))
    to_grammar(choice_rule(["yes", "no"]), before="thought", rules={"thought[suffix=\\"</think>\\"]": ANY_TEXT})

Source: the syntax is documented in llguidance's docs/syntax.md, its JSON schemas in docs/json_schema.md.
"""

import json
import re
from collections.abc import Iterator, Mapping, Sequence

from engine import RequestError
from server.schemas.constraint import (
    MAX_CONSTRAINT_CHARS,
    MAX_DEPTH,
    ConstrainedBody,
    ResponseFormat,
    StructuredOutputs,
    depth_of,
)
from server.translate.call_plan import CallPlan

ANY_TEXT = "/(?s:.*)/"
"""A rule for any text at all; behind it another can only follow a `suffix`, or a special token."""

SPACED = {"whitespace_pattern": r"\x20|\n\x20{0,32}"}
"""Between the parts of a JSON text one space, or a line break and its indent: never whitespace without end."""
TIGHT = {"whitespace_flexible": False}
LENIENT = {"lenient": True}

PLAIN_ESCAPES = {"json_allowed_escapes": 'nrbtf\\"'}
"""No \\uXXXX, with which a further property could take the name of one that has a schema of its own."""
_NEEDS_CODES = re.compile(r"\\u00[017]")  # control characters, in the schema's own names and values

OBJECT = {"type": "object"}
VALUES = frozenset({"const", "enum", "default", "examples"})
HOLDS_ONE = frozenset({"items", "additionalProperties", "additionalItems"})
MAX_SCHEMA_CHARS = 2 * MAX_CONSTRAINT_CHARS
MAX_GBNF_WORK = 8_000_000
"""Rules times characters: the translator may read all of it once for each rule, which takes up to 0.8 s."""


def body_grammar(body: ConstrainedBody) -> str:
    """The grammar that a body asks its answer to follow; "" where any text will do.

    Raises RequestError for text that is no JSON schema or no grammar.
    """
    rule = body_rule(body)
    return to_grammar(rule) if rule else ""


def body_rule(body: ConstrainedBody) -> str:
    """The same as a rule, "" where any text will do, for answers that are more than what the body asks for."""
    if body.response_format is not None and body.response_format.type != "text":
        return _format_rule(body.response_format)
    wanted = body.structured_outputs or StructuredOutputs.model_construct(
        json_=body.guided_json,
        regex=body.guided_regex,
        choice=body.guided_choice,
        grammar=body.guided_grammar,
    )
    return _structured_rule(wanted, body.constraint_param or "")


def reading_work(body: ConstrainedBody, plan: CallPlan | None = None) -> int:
    """How many characters of work it may be to write a body's grammar; none where it needs none."""
    needs_grammar = body.constraint_param is not None or (plan is not None and plan.needs_grammar)
    return MAX_GBNF_WORK if needs_grammar else 0


def json_rule(
    schema: Mapping[str, object] | bool, *, is_lenient: bool = False, has_whitespace: bool = True
) -> str:
    """JSON texts that validate against `schema`, without whitespace around them.

    A lenient rule passes over keywords that cannot be enforced, any other cannot be compiled with them.
    """
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    options = {**(SPACED if has_whitespace else TIGHT), **(LENIENT if is_lenient else {})}
    if not _NEEDS_CODES.search(json.dumps(schema)):
        options |= PLAIN_ESCAPES
    return f"%json {json.dumps({**schema, 'x-guidance': options})}"


def regex_rule(pattern: str) -> str:
    """Texts that the regular expression matches as a whole."""
    return f"/{_escaped(pattern)}/"


def choice_rule(choices: Sequence[str]) -> str:
    """Exactly one of `choices`."""
    return f"({' | '.join(map(text_rule, choices))})"


def text_rule(text: str) -> str:
    """Exactly `text`."""
    return json.dumps(text)


def lark_rule(grammar: str) -> str:
    """What another Lark grammar describes, from its own `start`."""
    return f"%lark {{\n{grammar}\n}}"


def to_grammar(answer: str, *, before: str = "", rules: Mapping[str, str] | None = None) -> str:
    """The grammar of a text that is `before`, then `answer`: two rules, of which the first may be empty.

    `rules` are further definitions that the two may name, each by its name and options.
    """
    definitions = {"start": f"{before} answer".strip(), **(rules or {}), "answer": answer}
    return "".join(f"{name}: {rule}\n" for name, rule in definitions.items())


def refuse_unenforced(schema: Mapping[str, object] | bool, param: str) -> None:
    """RequestError for a bound that would be counted wrong: the names of further properties may repeat.

    Everything else that cannot be enforced the library refuses by itself, where a rule is not lenient.
    """
    waiting = [("#", schema)] if not isinstance(schema, bool) else []
    while waiting:  # each part once, however deep it stands
        path, part = waiting.pop()
        _refuse_many_properties(part, param, path)
        waiting += [(f"{path}/{place}", inner) for place, inner in _parts(part)]


def _refuse_many_properties(schema: Mapping[str, object], param: str, path: str) -> None:
    least, required = schema.get("minProperties"), schema.get("required")
    num_required = len(required) if isinstance(required, list) else 0
    if isinstance(least, int) and least > num_required + 1:
        raise RequestError(
            f"the JSON schema in '{param}' has minProperties {least} at {path}, which cannot be enforced; at most "
            f"one more than the {num_required} required can be",
            param,
        )


def _parts(schema: Mapping[str, object]) -> Iterator[tuple[str, Mapping[str, object]]]:
    """The schemas right inside `schema`, each with its place."""
    for keyword, inner in schema.items():
        if keyword in HOLDS_ONE and isinstance(inner, dict):
            yield keyword, inner
        elif keyword not in VALUES:
            named = (
                inner.items()
                if isinstance(inner, dict)
                else enumerate(inner)
                if isinstance(inner, list)
                else ()
            )
            yield from ((f"{keyword}/{name}", part) for name, part in named if isinstance(part, dict))


def _format_rule(wanted: ResponseFormat) -> str:
    if wanted.json_schema is None:
        return json_rule(OBJECT)
    if wanted.json_schema.schema_ is None:
        return json_rule(True)
    schema, param = _read_schema(wanted.json_schema.schema_, "response_format"), "response_format"
    if wanted.json_schema.strict:
        refuse_unenforced(schema, param)
    return json_rule(schema, is_lenient=not wanted.json_schema.strict)


def _structured_rule(wanted: StructuredOutputs, param: str) -> str:
    has_whitespace = not wanted.disable_any_whitespace
    if wanted.json_ is not None:
        schema = _read_schema(wanted.json_, param)
        refuse_unenforced(schema, param)
        return json_rule(schema, has_whitespace=has_whitespace)
    if wanted.regex is not None:
        return regex_rule(wanted.regex)
    if wanted.choice is not None:
        return choice_rule(wanted.choice)
    if wanted.grammar is not None:
        return lark_rule(_read_grammar(wanted.grammar, param))
    return json_rule(OBJECT, has_whitespace=has_whitespace) if wanted.json_object else ""


def _read_schema(given: Mapping[str, object] | str | bool, param: str) -> Mapping[str, object] | bool:
    """The schema, which may come as text; RequestError if it is none, too deep, or too large."""
    schema = _parsed_schema(given, param) if isinstance(given, str) else given
    if (depth := depth_of(schema)) > MAX_DEPTH:
        raise RequestError(
            f"the JSON schema in '{param}' is nested {depth} levels deep; at most {MAX_DEPTH} are taken",
            param,
        )
    if not isinstance(given, str):
        length = len(json.dumps(given))
        if length > MAX_SCHEMA_CHARS:
            raise RequestError(
                f"the JSON schema in '{param}' is {length} characters as text; at most {MAX_SCHEMA_CHARS} are "
                "taken",
                param,
            )
    return schema


def _parsed_schema(given: str, param: str) -> Mapping[str, object] | bool:
    try:
        schema = json.loads(given)
    except (ValueError, RecursionError) as error:
        raise RequestError(f"'{param}' is text that is no JSON: {error}", param) from error
    if not isinstance(schema, dict | bool):
        raise RequestError(
            f"'{param}' is the text of no JSON schema: that is an object, true or false", param
        )
    return schema


def _read_grammar(given: str, param: str) -> str:
    """The grammar in Lark, into which GBNF is translated: that writes `::=` where Lark has a colon."""
    num_rules = given.count("::=")
    if not num_rules:
        return given
    if num_rules * len(given) > MAX_GBNF_WORK:
        raise RequestError(
            f"the GBNF grammar in '{param}' has {num_rules} rules in {len(given)} characters; the product of both "
            f"may be {MAX_GBNF_WORK}; make it smaller, or write it in Lark",
            param,
        )
    # Here, since it loads the library, and few ask for it.
    from llguidance.gbnf_to_lark import gbnf_to_lark  # noqa: PLC0415

    try:
        return gbnf_to_lark(given)
    except Exception as error:  # the translator raises nothing narrower
        raise RequestError(f"the GBNF grammar in '{param}' cannot be read: {error}", param) from error


def _escaped(pattern: str) -> str:
    """The pattern as it stands between slashes: a slash and a line break would end it there."""
    shown, is_escaped = [], False
    for character in pattern:
        escape = {"/": "\\/", "\n": "\\n", "\r": "\\r"}.get(character)
        if escape is not None and is_escaped:
            shown.append(escape[1:])
        else:
            shown.append(escape or character)
        is_escaped = character == "\\" and not is_escaped
    return "".join(shown)
