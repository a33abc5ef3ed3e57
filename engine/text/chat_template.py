"""`ChatTemplate`: a checkpoint's own jinja2 template, run in a sandbox.

Templates come with the weights and are foreign code, so they run in jinja2's immutable sandbox, see
plain values only, and get the names that checkpoints are written against: the ones `transformers`
gives them (`raise_exception`, `strftime_now`, `tojson`, loop controls, generation blocks).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import NoReturn

from jinja2 import Template, TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import CheckpointError, RequestError

TEMPLATE_FAILURES = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
"""What a template raises over messages that it was not written for."""


class ChatTemplate:
    """Turns messages into the text that the model was trained to continue."""

    def __init__(self, template: Template, special_tokens: Mapping[str, str]) -> None:
        self._template = template
        self._special_tokens = {"bos_token": "", "eos_token": "", **special_tokens}

    @classmethod
    def compile(
        cls,
        source: str,
        special_tokens: Mapping[str, str],
        now: Callable[[], datetime] = datetime.now,
    ) -> "ChatTemplate":
        """Compile the template; CheckpointError if it is malformed.

        `now` is the clock behind `strftime_now`, in local time.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
        try:
            return cls(environment.from_string(source), special_tokens)
        except TemplateError as error:
            raise CheckpointError(f"the checkpoint's chat template is malformed: {error}") from error

    def render(self, messages: Sequence[Mapping[str, object]]) -> str:
        """The prompt up to where the assistant's answer begins.

        Raises RequestError with the template's own words when it refuses the messages.
        """
        try:
            return self._template.render(
                messages=[dict(message) for message in messages],
                tools=None,
                documents=None,
                add_generation_prompt=True,
                **self._special_tokens,
            )
        except TEMPLATE_FAILURES as error:
            raise RequestError(
                f"the model's chat template refuses these messages: {error}", "messages"
            ) from error


class _GenerationBlock(Extension):
    """`{% generation %}…{% endgeneration %}` marks answers for training; here it is only its content."""

    tags = {"generation"}  # noqa: RUF012 - jinja2 declares it as an instance variable

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body, lineno=line)


def _raise_exception(message: str) -> NoReturn:
    raise TemplateError(message)


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """jinja2's own filter escapes for HTML, which a prompt is not."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )
