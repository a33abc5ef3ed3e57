"""Conversations as chat templates know them, and in words where a template knows no calls.

A template that reads `tools` is given them and the calls of earlier turns as they are. For every other
one the functions are described in a preamble, an earlier call is what the model would have written, and
its result is something that the user says.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from engine import ChatOptions, RequestError
from server.reasoning import ReasoningTags
from server.schemas.chat import ChatMessage, TemplateBody
from server.schemas.tools import FunctionDefinition
from server.tools.formats import JSON, ToolFormat

Message = dict[str, object]

SHORT_ID_CHARS = 9

_PREAMBLE = """You can call functions. These are the functions, one a line, each with a JSON schema of its arguments:
{functions}

To call a function, write its name and its arguments exactly in this form, and nothing after it:
{example}
You will be told the result. {when}"""
_WHEN_FREE = "If no function is needed, answer in plain text."
_WHEN_FORCED = "Call a function now."


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnStyle:
    """How earlier turns are told to a template.

    `in_words` is for templates that know no calls. `past_reasoning` keeps the reasoning of earlier
    turns: as a field where the template `reads_reasoning`, else between the tags in front of the text.
    """

    tool_format: ToolFormat = JSON
    in_words: bool = False
    past_reasoning: ReasoningTags | None = None
    reads_reasoning: bool = False


PLAIN_STYLE = TurnStyle()


def to_messages(messages: Sequence[ChatMessage], style: TurnStyle = PLAIN_STYLE) -> list[Message]:
    """The messages for a template: text only, `developer` under its older name, calls in one form."""
    told: list[Message] = []
    names: dict[str, str] = {}
    tells_results = False
    for message in messages:
        names |= {call.id: call.function.name for call in message.tool_calls or ()}
        is_result = style.in_words and message.role in ("tool", "function")
        if is_result and tells_results:  # one message, since the user and the assistant must take turns
            told[-1]["content"] = f"{told[-1]['content']}\n\n{_result(message, names)}"
        elif is_result:
            told.append({"role": "user", "content": _result(message, names)})
        else:
            told.append(_to_message(message, style))
        tells_results = is_result
    return told


def to_chat_options(
    body: TemplateBody,
    known: frozenset[str] | None,
    reasoning_effort: str | None = None,
    tools: Sequence[Mapping[str, object]] = (),
) -> ChatOptions:
    """How the messages become a prompt.

    Raises RequestError for a variable that is not among `known`, those that the template reads;
    None lets every variable pass.
    """
    variables: dict[str, object] = dict(body.chat_template_kwargs or {})
    unread = sorted(set(variables) - known) if known is not None else []
    if unread:
        raise RequestError(
            f"the model's chat template does not read {unread[0][:60]!r}; leave it out",
            "chat_template_kwargs",
        )
    if reasoning_effort is not None:
        if variables.get("reasoning_effort", reasoning_effort) != reasoning_effort:
            raise RequestError(
                "'reasoning_effort' and chat_template_kwargs.reasoning_effort differ; send one of them",
                "reasoning_effort",
            )
        if known is None or "reasoning_effort" in known:
            variables["reasoning_effort"] = reasoning_effort
        elif reasoning_effort != "none":
            raise RequestError(
                "'reasoning_effort' is not supported by this model: its chat template does not read it",
                "reasoning_effort",
            )
    return ChatOptions(
        add_generation_prompt=body.add_generation_prompt is not False,
        continue_final_message=bool(body.continue_final_message),
        add_special_tokens=bool(body.add_special_tokens),
        variables=variables,
        tools=tools,
    )


def in_front(messages: Sequence[Mapping[str, object]], text: str, role: str) -> list[Message]:
    """`messages` with `text` behind what their system message says, or before what the user says first.

    Where no such message is, it becomes one. `role` is user for templates that know no system.
    """
    copies = [dict(message) for message in messages]
    first = next((message for message in copies if message["role"] == role), None)
    if first is None or (role == "system" and first is not copies[0]):
        return [{"role": role, "content": text}, *copies]
    parts = (first["content"], text) if role == "system" else (text, first["content"])
    first["content"] = "\n\n".join(map(str, filter(None, parts)))
    return copies


def to_template_tools(functions: Sequence[FunctionDefinition]) -> list[dict[str, object]]:
    """The functions as templates read them."""
    return [{"type": "function", "function": _described(function)} for function in functions]


def preamble(functions: Sequence[FunctionDefinition], tool_format: ToolFormat, *, must_call: bool) -> str:
    """The description of functions for a model whose template has no place for them."""
    first = functions[0].parameters or {}
    properties = first.get("properties")
    example = dict.fromkeys(list(properties if isinstance(properties, dict) else ())[:2], "...")
    return _PREAMBLE.format(
        functions="\n".join(json.dumps(_described(function), ensure_ascii=False) for function in functions),
        example=tool_format.spell([(functions[0].name, json.dumps(example, ensure_ascii=False))]),
        when=_WHEN_FORCED if must_call else _WHEN_FREE,
    )


def short_id(call_id: str) -> str:
    """A call's id as templates for Mistral's models demand it: nine letters and digits."""
    if len(call_id) == SHORT_ID_CHARS and call_id.isascii() and call_id.isalnum():
        return call_id
    return hashlib.sha256(call_id.encode()).hexdigest()[:SHORT_ID_CHARS]


def _described(function: FunctionDefinition) -> dict[str, object]:
    parameters = function.parameters or {"type": "object", "properties": {}}
    description = {} if function.description is None else {"description": function.description}
    return {"name": function.name, **description, "parameters": parameters}


def _to_message(message: ChatMessage, style: TurnStyle) -> Message:
    role = {"developer": "system", "function": "tool"}.get(message.role, message.role)
    rendered: Message = {"role": role, "content": message.text}
    if message.name is not None:
        rendered["name"] = message.name
    if message.tool_call_id is not None:
        rendered["tool_call_id"] = _id_for(style, message.tool_call_id)
    if message.role == "function":
        rendered["tool_call_id"] = _id_for(style, _legacy_id(message.name or ""))
    calls = _calls_of(message)
    if calls and style.in_words:
        spelled = style.tool_format.spell([(name, arguments) for _, name, arguments in calls])
        rendered["content"] = f"{message.text}\n{spelled}".lstrip("\n")
    elif calls:
        rendered["tool_calls"] = [
            {
                "id": _id_for(style, call_id),
                "type": "function",
                "function": {"name": name, "arguments": _parsed(arguments)},
            }
            for call_id, name, arguments in calls
        ]
    _put_reasoning(rendered, message, style)
    return rendered


def _put_reasoning(rendered: Message, message: ChatMessage, style: TurnStyle) -> None:
    reasoning = message.reasoning or message.reasoning_content
    tags = style.past_reasoning
    if not reasoning or tags is None:
        return
    if style.reads_reasoning:
        rendered["reasoning_content"] = reasoning
    else:
        block = f"{tags.opening}\n{reasoning}\n{tags.closing}\n\n"
        rendered["content"] = f"{block}{rendered['content']}"


def _calls_of(message: ChatMessage) -> list[tuple[str, str, str]]:
    """Id, name and arguments of each call in the message."""
    if message.function_call is not None:
        call = message.function_call
        return [(_legacy_id(call.name), call.name, call.arguments)]
    return [(call.id, call.function.name, call.function.arguments) for call in message.tool_calls or ()]


def _result(message: ChatMessage, names: Mapping[str, str]) -> str:
    """What a function answered, as the user tells it."""
    name = message.name or names.get(message.tool_call_id or "", "the function")
    return f"Result of {name}:\n{message.text}"


def _id_for(style: TurnStyle, call_id: str) -> str:
    return short_id(call_id) if style.tool_format.has_short_ids else call_id


def _legacy_id(name: str) -> str:
    """An id for a call of the older form, which has none: the result names the function."""
    return f"call_{name}"


def _parsed(arguments: str) -> object:
    """Templates write arguments as JSON themselves; text that is no object stays text."""
    try:
        parsed = json.loads(arguments)
    except (ValueError, RecursionError):
        return arguments
    return parsed if isinstance(parsed, dict) else arguments
