"""`ChatTemplate`: a checkpoint's own jinja2 template, run in a sandbox.

Templates come with the weights and are foreign code, so they run in jinja2's immutable sandbox, see
plain values only, and get the names that checkpoints are written against: the ones `transformers`
gives them (`raise_exception`, `strftime_now`, `tojson`, loop controls, generation blocks).
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import NoReturn

from jinja2 import Template, TemplateError, meta, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from engine.errors import CheckpointError, RequestError
from engine.text.template_budget import COUNTED, Budget, count_rounds, with_counted_loops

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


OWN_VARIABLES = frozenset(
    {"messages", "tools", "documents", "add_generation_prompt", "bos_token", "eos_token", COUNTED}
)
"""What is always given to a template, and is not for a request to set among its variables."""

CONTINUED = "\ue000continue\ue001"
"""Marks the end of the message to go on with; private characters that no model was trained on."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatOptions:
    """How messages become a prompt, besides what they say.

    `add_generation_prompt` opens the assistant's answer; `continue_final_message` leaves the last
    message open instead, so that it is gone on with. `add_special_tokens` puts the model's own
    tokens around what the template wrote. `variables` are further names for the template. `tools` are
    the functions that the model may call, as OpenAI writes them. A prompt that fills `max_context` is of
    no use, and need not be encoded.
    """

    add_generation_prompt: bool = True
    continue_final_message: bool = False
    add_special_tokens: bool = False
    variables: Mapping[str, object] = field(default_factory=dict)
    tools: Sequence[Mapping[str, object]] = ()
    max_context: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RenderedChat:
    """A prompt made of messages: its text, and the token ids that the model gets."""

    text: str
    token_ids: tuple[int, ...]


class ChatTemplate:
    """Turns messages into the text that the model was trained to continue.

    `source` is its text. `variables` are the names that it reads, those that are always given left
    out; `reads_tools` says whether it shows the model what may be called.
    """

    def __init__(
        self,
        template: Template,
        special_tokens: Mapping[str, str],
        variables: frozenset[str],
        source: str,
        clock: Callable[[], float],
    ) -> None:
        self._template = template
        self._clock = clock
        self.source = source
        self.reads_tools = "tools" in variables
        self._special_tokens = {"bos_token": "", "eos_token": "", **special_tokens}
        self.variables = variables - OWN_VARIABLES - set(special_tokens)

    @classmethod
    def compile(
        cls,
        source: str,
        special_tokens: Mapping[str, str],
        now: Callable[[], datetime] = datetime.now,
        clock: Callable[[], float] = time.monotonic,
    ) -> "ChatTemplate":
        """Compile the template; CheckpointError if it is malformed.

        `now` is the clock behind `strftime_now`, in local time; `clock` counts the seconds of a rendering.
        """
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols, _GenerationBlock]
        )
        environment.filters["tojson"] = _to_json
        environment.filters[COUNTED] = count_rounds
        environment.globals["raise_exception"] = _raise_exception
        environment.globals["strftime_now"] = lambda layout: now().strftime(layout)
        try:
            names = meta.find_undeclared_variables(environment.parse(source))
            known = frozenset(names - environment.globals.keys())
            template = environment.from_string(with_counted_loops(environment.parse(source)))
            return cls(template, special_tokens, known, source, clock)
        except TemplateError as error:
            raise CheckpointError(f"the checkpoint's chat template is malformed: {error}") from error

    def render(self, messages: Sequence[Mapping[str, object]], options: ChatOptions | None = None) -> str:
        """The prompt up to where the assistant's answer begins, or goes on.

        Raises RequestError with the template's own words when it refuses the messages.
        """
        options = options or ChatOptions()
        given = [dict(message) for message in messages]
        if options.continue_final_message:
            _mark_end(given)
        budget = Budget(self._clock)
        try:
            pieces = self._template.generate(
                {
                    **options.variables,
                    **self._special_tokens,
                    "messages": given,
                    "tools": [dict(tool) for tool in options.tools] or None,
                    "documents": None,
                    "add_generation_prompt": options.add_generation_prompt
                    and not options.continue_final_message,
                    COUNTED: budget,
                }
            )
            rendered = "".join(budget.counted(pieces))
        except TEMPLATE_FAILURES as error:
            param = "chat_template_kwargs" if self._blames_variables(messages, options) else "messages"
            refused = "variables" if param == "chat_template_kwargs" else "messages"
            raise RequestError(
                f"the model's chat template refuses these {refused}: {error}", param
            ) from error
        return _up_to_mark(rendered) if options.continue_final_message else rendered

    def _blames_variables(self, messages: Sequence[Mapping[str, object]], options: ChatOptions) -> bool:
        """Whether messages that were refused would do without the variables."""
        if not options.variables:
            return False
        try:
            self.render(messages, replace(options, variables={}))
        except RequestError:
            return False
        return True


def _mark_end(messages: list[dict[str, object]]) -> None:
    """Mark where the last message's content ends, whatever the template writes behind it."""
    content = messages[-1].get("content") if messages else None
    if not isinstance(content, str):
        raise RequestError("the last message has no text that could be continued", "continue_final_message")
    messages[-1]["content"] = content + CONTINUED


def _up_to_mark(rendered: str) -> str:
    before, mark, _ = rendered.rpartition(CONTINUED)
    if not mark:
        raise RequestError(
            "the model's chat template does not show the last message, so it cannot be continued",
            "continue_final_message",
        )
    return before


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
