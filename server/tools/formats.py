"""The formats of calls: how each is read, how it is written, and which one a model was trained on.

A `ToolFormat` holds both ways. How it is written serves the grammar that constrains a model to it, and
the prompt of a model whose own template knows no tools.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from server.tools.bare import PYTHON_TAG, read_json, read_llama3
from server.tools.call_parser import Reader
from server.tools.hermes import CLOSING, OPENING, read_hermes
from server.tools.mistral import ARGUMENTS, CALL_ID, read_mistral
from server.tools.mistral import OPENING as MISTRAL_OPENING


@dataclass(frozen=True, slots=True, kw_only=True)
class CallSyntax:
    """How calls are written:

        marker opening [head NAME middle ARGUMENTS tail] between [...] closing

    `marker` may be the name of a special token, as may the parts of `middle`. Where it `repeats`, it
    stands in front of every call.
    """

    marker: str = ""
    repeats: bool = False
    opening: str = ""
    head: str = '{"name": "'
    middle: str = '", "arguments": '
    tail: str = "}"
    between: str = "\n"
    closing: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """One format. `markers` are tokens that its parser has to see, although they are hidden elsewhere."""

    name: str
    read: Reader
    syntax: CallSyntax
    markers: tuple[str, ...] = ()
    has_short_ids: bool = False

    def spell(self, calls: Sequence[tuple[str, str]]) -> str:
        """`calls`, each a name and the JSON text of its arguments, as a model writes them."""
        syntax = self.syntax
        spelled = [f"{syntax.head}{name}{syntax.middle}{arguments}{syntax.tail}" for name, arguments in calls]
        between = syntax.between + (syntax.marker if syntax.repeats else "")
        return f"{syntax.marker}{syntax.opening}{between.join(spelled)}{syntax.closing}"


HERMES = ToolFormat(
    name="hermes",
    read=read_hermes,
    syntax=CallSyntax(marker=OPENING, repeats=True, head='\n{"name": "', tail="}\n" + CLOSING),
    markers=(OPENING, CLOSING),
)
MISTRAL = ToolFormat(
    name="mistral",
    read=read_mistral,
    syntax=CallSyntax(marker=MISTRAL_OPENING, opening="[", between=", ", closing="]"),
    markers=(MISTRAL_OPENING, ARGUMENTS, CALL_ID),
    has_short_ids=True,
)
MISTRAL_NAMED = ToolFormat(
    name="mistral",
    read=read_mistral,
    syntax=CallSyntax(marker=MISTRAL_OPENING, repeats=True, head="", middle=ARGUMENTS, tail="", between=""),
    markers=MISTRAL.markers,
    has_short_ids=True,
)
LLAMA3 = ToolFormat(
    name="llama3",
    read=read_llama3,
    syntax=CallSyntax(middle='", "parameters": ', between="; "),
    markers=(PYTHON_TAG,),
)
JSON = ToolFormat(name="json", read=read_json, syntax=CallSyntax())


def choose_format(setting: str, template: str) -> ToolFormat | None:
    """The format that `--tool-format` names; for `auto` the one whose markers are in the chat template.

    None for `none`: then there are no tools.
    """
    if setting == "none":
        return None
    mistral = MISTRAL_NAMED if ARGUMENTS in template else MISTRAL
    named = {"hermes": HERMES, "mistral": mistral, "llama3": LLAMA3, "json": JSON}
    if setting in named:
        return named[setting]
    for format_, marker in ((HERMES, OPENING), (mistral, MISTRAL_OPENING), (LLAMA3, PYTHON_TAG)):
        if marker in template:
            return format_
    return JSON
