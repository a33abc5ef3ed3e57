"""Wire types of chat completions: the request body, and OpenAI's answers with the fields we add.

The answers are `openai.types`, so the official clients read them as their own. This module knows
nothing of the engine.
"""

from typing import Annotated, ClassVar, Literal, Self

from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.chat.chat_completion import Choice
from openai.types.chat.chat_completion_chunk import Choice as ChunkChoice
from pydantic import Discriminator, Field, StrictBool, StrictInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.schemas.common import (
    MAX_INT,
    UNSUPPORTED_PARAMETER,
    GenerationBody,
    Text,
    WireModel,
    text_or_list,
)

MAX_MESSAGES = 4096
MAX_PARTS = 1024
MAX_METADATA = 16


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
    | Annotated[list[TextPart], Field(min_length=1, max_length=MAX_PARTS), Tag("list")],
    Discriminator(
        text_or_list,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a string or an array of content parts",
    ),
]


class ChatMessage(WireModel):
    """One message of a conversation."""

    UNBUILT: ClassVar[tuple[str, ...]] = ("tool_calls", "function_call", "audio", "annotations")

    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: Content | None = Field(None, description="A string, or an array of text parts.")
    name: Text | None = Field(None, description="Who speaks, where the chat template uses it.")
    refusal: Text | None = Field(None, description="Of an assistant, in the place of content.")
    tool_call_id: Text | None = Field(None, description="Of a tool: the call that it answers.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_unbuilt(cls, message: object) -> object:
        if not isinstance(message, dict):
            return message
        refused = next((name for name in cls.UNBUILT if message.get(name) not in (None, [])), None)
        if refused is not None:
            raise PydanticCustomError(
                UNSUPPORTED_PARAMETER,
                "'{param}' in a message is not supported yet; leave it out",
                {"param": refused},
            )
        return {name: value for name, value in message.items() if name not in cls.UNBUILT}

    @model_validator(mode="after")
    def _check_content(self) -> Self:
        if self.content is None and not (self.role == "assistant" and self.refusal is not None):
            raise PydanticCustomError("missing", "A message needs content", {"param": "content"})
        return self

    @property
    def text(self) -> str:
        """What the message says, its parts joined."""
        if self.content is None:
            return self.refusal or ""
        return self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)


class ChatCompletionRequest(GenerationBody):
    """The body of POST /v1/chat/completions."""

    UNBUILT: ClassVar[dict[str, tuple[object, ...]]] = {
        **GenerationBody.UNBUILT,
        "tools": (None, []),
        "tool_choice": (None, "none", "auto"),
        "parallel_tool_calls": (None, True),
        "functions": (None, []),
        "function_call": (None, "none", "auto"),
        "response_format": (None, {"type": "text"}),
        "modalities": (None, ["text"]),
        "audio": (None,),
        "prediction": (None,),
        "reasoning_effort": (None, "none"),
        "verbosity": (None, "medium"),
        "web_search_options": (None,),
        "moderation": (None,),
        "prompt_cache_options": (None,),
        "top_logprobs": (None, 0),
        "service_tier": (None, "auto", "default"),
        "store": (None, False),
    }

    messages: Annotated[list[ChatMessage], Field(min_length=1, max_length=MAX_MESSAGES)] = Field(
        description="The conversation so far, oldest first."
    )
    max_completion_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_INT)] | None = Field(
        None, description="Most tokens of one choice; what is left of the context if left out."
    )
    logprobs: StrictBool | None = Field(None, description="Tell the log-probability of each token.")
    top_logprobs: Literal[0] | None = Field(None, description="Other tokens than the chosen: not yet.")
    metadata: Annotated[dict[str, Text], Field(max_length=MAX_METADATA)] | None = Field(
        None, description="Accepted, without effect."
    )
    safety_identifier: Text | None = Field(None, description="Accepted, without effect.")
    prompt_cache_key: Text | None = Field(None, description="Accepted, without effect.")
    prompt_cache_retention: Text | None = Field(None, description="Accepted, without effect.")
    service_tier: Literal["auto", "default"] | None = Field(None, description="Accepted, without effect.")
    store: Literal[False] | None = Field(None, description="Accepted, without effect.")

    @model_validator(mode="after")
    def _check_token_limits(self) -> Self:
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise PydanticCustomError(
                "invalid_value",
                "'max_tokens' and 'max_completion_tokens' must not both be given",
                {"param": "max_tokens"},
            )
        return self


class ChatAnswerChoice(Choice):
    """A choice of a whole answer; `token_ids` only where the request asked."""

    token_ids: list[int] | None = None


class ChatAnswer(ChatCompletion):
    """A whole answer; `prompt_token_ids` only where the request asked."""

    choices: list[ChatAnswerChoice]  # type: ignore[assignment]  # narrower than the base's list, read only
    prompt_token_ids: list[int] | None = None


class ChatChunkChoice(ChunkChoice):
    """A choice of a streamed chunk; `token_ids` only where the request asked."""

    token_ids: list[int] | None = None


class ChatChunk(ChatCompletionChunk):
    """One event of a streamed answer; `prompt_token_ids` in the first, where the request asked."""

    choices: list[ChatChunkChoice]  # type: ignore[assignment]  # narrower than the base's list, read only
    prompt_token_ids: list[int] | None = None
