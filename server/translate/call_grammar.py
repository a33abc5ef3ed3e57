"""Grammars under which a model can only make valid calls: of declared functions, with arguments that fit.

`forced_calls` is an answer of calls alone. `free_calls` is text in which whatever begins as a call must
go on as one. Both are rules for `server.translate.constraint.to_grammar`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from server.schemas.tools import FunctionDefinition
from server.tools.formats import ToolFormat
from server.translate.constraint import json_rule, text_rule
from server.translate.thought_grammar import token_rule

MAX_CALLS = 128
ANY_OBJECT: Mapping[str, object] = {"type": "object"}
NO_ARGUMENTS: Mapping[str, object] = {"type": "object", "properties": {}, "additionalProperties": False}
_S = r"[ \t\r\n]*"
_LINE_START = r"([ \t\r\n,;]*|(?s:.*)\n[ \t\r]*)"
_KEYS = r'"(type|id|arguments|parameters)"'
_OTHER_CALLS = rf'(\{{{_S}{_KEYS}|\[{_S}\{{{_S}("name"|{_KEYS}))'
_NAME_FIRST = '{"name"'
"""How a call begins that a grammar lets pass where formats have no marker; their other beginnings it bars."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRules:
    """A rule for the answer, and the definitions that it names."""

    answer: str
    rules: Mapping[str, str]


def forced_calls(
    functions: Sequence[FunctionDefinition],
    format_: ToolFormat,
    special_ids: Mapping[str, int],
    *,
    is_parallel: bool,
) -> CallRules:
    """Nothing but calls, at least one; each fits its function's schema, strict or not."""
    syntax = format_.syntax
    spell = _Speller(special_ids)
    marker = syntax.marker if syntax.repeats else ""
    rules = _bodies(functions, format_, spell, syntax.head, are_strict=True)
    parts = [spell(("" if syntax.repeats else syntax.marker) + syntax.opening), spell(marker), "call"]
    if is_parallel:
        parts.append(f"({spell(syntax.between + marker)} call){{0,{MAX_CALLS - 1}}}")
    parts.append(spell(syntax.closing))
    return CallRules(answer=" ".join(filter(None, parts)), rules=rules)


def free_calls(
    functions: Sequence[FunctionDefinition],
    format_: ToolFormat,
    special_ids: Mapping[str, int],
    *,
    is_parallel: bool,
    not_first: str = "",
) -> CallRules:
    """Any text, with calls in it, whose arguments fit the schema where the function is strict.

    The text does not begin with `not_first`, which something else is to be read as.
    """
    syntax = format_.syntax
    spell = _Speller(special_ids)
    head = syntax.head if syntax.marker else syntax.head.removeprefix(_NAME_FIRST)
    rules = _bodies(functions, format_, spell, head, are_strict=False)
    rules |= _free_text(format_, special_ids, not_first)
    body = _marked_body(format_, spell, is_parallel=is_parallel) if syntax.marker else "call"
    may_repeat = is_parallel and (syntax.repeats or not syntax.marker)
    return CallRules(answer=f"(lead {body})* TEXT?" if may_repeat else f"(TEXT? | lead {body})", rules=rules)


def _free_text(format_: ToolFormat, special_ids: Mapping[str, int], not_first: str) -> dict[str, str]:
    """`TEXT`: what is no call; `lead`: text up to and with the beginning of one."""
    marker = format_.syntax.marker
    barred = [f"{_S}{_pattern(not_first)}"] if not_first else []
    if marker in special_ids:
        barred.append(f"(?s:.*){_pattern(marker)}")  # spelled by other tokens
        rules = {"lead": f"TEXT? {token_rule(special_ids[marker])}"}
    elif marker:
        rules = {"lead[lazy]": f"TEXT {text_rule(marker)}"}
    else:
        barred += [f"(?s:.*){_pattern(other)}" for other in format_.markers]
        barred.append(f"{_LINE_START}{_OTHER_CALLS}")
        rules = {"lead[lazy]": "LEAD", "LEAD": f'/{_LINE_START}\\{{{_S}"name"/ & TEXT'}
    rules["TEXT"] = " & ".join(["/(?s:.*)/", *(f"~/{beginning}(?s:.*)/" for beginning in barred)])
    return rules


class _Speller:
    """Writes text as a rule, with the special tokens in it as tokens."""

    def __init__(self, special_ids: Mapping[str, int]) -> None:
        self._ids = special_ids
        names = "|".join(map(re.escape, sorted(special_ids, key=len, reverse=True)))
        self._cut = re.compile(f"({names})") if names else None

    def __call__(self, text: str) -> str:
        parts = [text] if self._cut is None else self._cut.split(text)
        rules = [token_rule(self._ids[p]) if p in self._ids else text_rule(p) for p in parts if p]
        return " ".join(rules)


def _bodies(
    functions: Sequence[FunctionDefinition],
    format_: ToolFormat,
    spell: _Speller,
    head: str,
    *,
    are_strict: bool,
) -> dict[str, str]:
    """`call`: one call of any of the functions, without a marker, from `head` on."""
    syntax, rules = format_.syntax, dict[str, str]()
    rules["call"] = " | ".join(f"call_{index}" for index in range(len(functions)))
    for index, function in enumerate(functions):
        around = spell(f"{head}{function.name}{syntax.middle}"), spell(syntax.tail)
        rules[f"call_{index}"] = f"{around[0]} arguments_{index} {around[1]}".strip()
        schema = schema_of(function) if are_strict or function.strict else ANY_OBJECT
        rules[f"arguments_{index}"] = json_rule(schema, is_lenient=not function.strict)
    return rules


def schema_of(function: FunctionDefinition) -> Mapping[str, object]:
    """The schema of a function's arguments, which are an object in any case."""
    if function.parameters is None:
        return NO_ARGUMENTS
    return {**function.parameters, "type": "object"}


def _marked_body(format_: ToolFormat, spell: _Speller, *, is_parallel: bool) -> str:
    """What follows the marker: a call, or with formats that open a list all calls of it."""
    syntax = format_.syntax
    if syntax.repeats:
        return "call"
    more = f"({spell(syntax.between)} call){{0,{MAX_CALLS - 1}}}" if is_parallel else ""
    return " ".join(filter(None, (spell(syntax.opening), "call", more, spell(syntax.closing))))


def _pattern(text: str) -> str:
    """`text` within a regular expression between slashes."""
    return re.escape(text).replace("/", "\\/")
