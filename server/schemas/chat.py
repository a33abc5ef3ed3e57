"""Wire types of chat completions: the request body. This module knows nothing of the engine."""

from collections.abc import Iterable
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    Discriminator,
    Field,
    JsonValue,
    StrictBool,
    StrictInt,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from server.contract.chat import CHAT
from server.contract.fields import ContractField
from server.schemas.common import (
    MAX_INT,
    UNSUPPORTED_PARAMETER,
    Text,
    WireModel,
    invalid,
    text_or_list,
    without_lone_surrogates,
)
from server.schemas.generation import GenerationBody, LogprobCount
from server.schemas.tools import PastFunctionCall, PastToolCalls, ToolBody, complaint

MAX_MESSAGES = 4096
MAX_PARTS = 1024
MAX_VARIABLES = 64

ReasoningEffort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


class TextPart(WireModel):
    """A piece of a message's content; text is the only kind so far."""

    type: Literal["text"]
    text: Text

    @model_validator(mode="before")
    @classmethod
    def _refuse_other_kinds(cls, part: object) -> object:
        kind = part.get("type") if isinstance(part, dict) else None
        if isinstance(kind, str) and kind != "text":
            raise PydanticCustomError(
                UNSUPPORTED_PARAMETER,
                "content of type '{kind}' is not supported yet; send text",
                {"kind": kind},
            )
        return part


Content = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS, fail_fast=True), Tag("list")],
    Discriminator(
        text_or_list,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a string or an array of content parts",
    ),
]


_SPEAKERS = {
    "refusal": "assistant",
    "reasoning": "assistant",
    "reasoning_content": "assistant",
    "tool_calls": "assistant",
    "function_call": "assistant",
    "tool_call_id": "tool",
}
"""Whose messages may have these fields."""


class ChatMessage(WireModel):
    """One message of a conversation."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = CHAT
    PREFIX: ClassVar[str] = "messages[]."

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: Content | None = None
    name: Text | None = None
    refusal: Text | None = None
    reasoning: Text | None = None
    reasoning_content: Text | None = None
    tool_calls: PastToolCalls | None = None
    tool_call_id: Text | None = None
    function_call: PastFunctionCall | None = None

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        says_otherwise = self.refusal is not None or self.tool_calls or self.function_call
        if self.content is None and not (self.role == "assistant" and says_otherwise):
            raise PydanticCustomError("missing", "A message needs content", {"param": "content"})
        return self

    @model_validator(mode="after")
    def _check_speaker(self) -> Self:
        for param, role in _SPEAKERS.items():
            if getattr(self, param) not in (None, []) and self.role != role:
                raise invalid(param, f"'{param}' is only allowed in messages of the role '{role}'")
        if self.tool_calls and self.function_call:
            raise invalid("function_call", "'function_call' and 'tool_calls' must not both be given")
        if self.role == "tool" and self.tool_call_id is None:
            raise PydanticCustomError("missing", "It says which call is answered", {"param": "tool_call_id"})
        if self.role == "function" and self.name is None:
            raise PydanticCustomError("missing", "It says which function answers", {"param": "name"})
        return self

    @property
    def text(self) -> str:
        """What the message says, its parts joined."""
        if self.content is None:
            return self.refusal or ""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


def _check_turns(messages: list[ChatMessage]) -> list[ChatMessage]:
    """Each call of an assistant is answered, once, by the messages that follow it, and nothing else is."""
    asked_at, unanswered = 0, dict[str, None]()
    for index, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in unanswered:
                raise complaint(
                    (index, "tool_call_id"),
                    "messages with role 'tool' must be a response to a preceding message with 'tool_calls'",
                )
            del unanswered[message.tool_call_id]
            continue
        _refuse_unanswered(asked_at, unanswered)
        asked_at, unanswered = index, dict.fromkeys(call.id for call in message.tool_calls or ())
        if len(unanswered) < len(message.tool_calls or ()):
            raise complaint((index, "tool_calls"), "the ids of 'tool_calls' must differ")
    _refuse_unanswered(asked_at, unanswered)
    return messages


def _refuse_unanswered(index: int, unanswered: Iterable[str]) -> None:
    if ids := ", ".join(unanswered):
        raise complaint(
            (index, "tool_calls"),
            "An assistant message with 'tool_calls' must be followed by tool messages responding to each "
            f"'tool_call_id'. The following tool_call_ids did not have response messages: {ids[:200]}",
        )


Messages = Annotated[
    list[ChatMessage],
    Field(min_length=1, max_length=MAX_MESSAGES, fail_fast=True),
    AfterValidator(_check_turns),
]


def _check_texts(variables: dict[str, JsonValue]) -> dict[str, JsonValue]:
    """Text anywhere in the variables has to be text that can be encoded."""
    waiting: list[JsonValue] = [*variables, *variables.values()]
    while waiting:
        match waiting.pop():
            case str(text):
                without_lone_surrogates(text)
            case list(values):
                waiting += values
            case dict(values):
                waiting += [*values, *values.values()]
    return variables


Variables = Annotated[dict[str, JsonValue], Field(max_length=MAX_VARIABLES), AfterValidator(_check_texts)]


class TemplateBody(WireModel):
    """How messages become a prompt, besides what they say."""

    chat_template_kwargs: Variables | None = None
    add_generation_prompt: StrictBool | None = None
    continue_final_message: StrictBool | None = None
    add_special_tokens: StrictBool | None = None

    @model_validator(mode="after")
    def _check_one_end(self) -> Self:
        if self.continue_final_message and self.add_generation_prompt:
            raise invalid(
                "continue_final_message",
                "'continue_final_message' and 'add_generation_prompt' must not both be true",
            )
        return self


class Prediction(WireModel):
    """What the caller expects the answer to be."""

    type: Literal["content"]
    content: Content


class ChatCompletionRequest(GenerationBody, TemplateBody, ToolBody, defer_build=False):
    """The body of POST /v1/chat/completions."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = CHAT

    messages: Messages
    max_completion_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_INT)] | None = None
    max_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_INT)] | None = None
    logprobs: StrictBool | None = None
    top_logprobs: LogprobCount | None = None
    reasoning_effort: ReasoningEffort | None = None
    include_past_reasoning: StrictBool | None = None
    safe_prompt: StrictBool | None = None
    prediction: Prediction | None = None

    @model_validator(mode="after")
    def _check_token_limits(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise invalid("max_tokens", "'max_tokens' and 'max_completion_tokens' must not both be given")
        return self

    @model_validator(mode="after")
    def _check_top_logprobs(self) -> Self:
        if self.top_logprobs and not self.logprobs:
            raise invalid("top_logprobs", "'top_logprobs' needs 'logprobs': true")
        return self
