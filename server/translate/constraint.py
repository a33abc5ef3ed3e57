"""What an answer must look like, as one grammar in llguidance's dialect of Lark.

A *rule* is text that may stand on the right side of a grammar's rule: a JSON schema, a regular
expression, a choice of texts, another grammar. `to_grammar` makes a whole grammar of one. Pure functions;
whether a grammar can be compiled, the engine says.

    to_grammar(json_rule({"type": "integer"}))
    to_grammar(choice_rule(["yes", "no"]), before="thought", rules={"thought[suffix=\\"</think>\\"]": ANY_TEXT})

Source: the syntax is documented in llguidance's docs/syntax.md, its JSON schemas in docs/json_schema.md.
"""

import json
from collections.abc import Mapping, Sequence

ANY_TEXT = "/(?s:.*)/"
"""A rule for any text at all; behind it another can only follow a `suffix`, or a special token."""

JSON_OPTIONS = {"whitespace_pattern": r"\x20|\n\x20{0,32}"}
"""Between the parts of a JSON text one space, or a line break and its indent: never whitespace without end."""


def json_rule(schema: Mapping[str, object] | bool) -> str:
    """JSON texts that validate against `schema`, without whitespace around them."""
    if isinstance(schema, bool):
        schema = {} if schema else {"enum": []}
    return f"%json {json.dumps({**schema, 'x-guidance': JSON_OPTIONS})}"


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
