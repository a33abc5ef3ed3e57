"""Wire types of plain completions: the request body, and OpenAI's answers with the fields we add.

This module knows nothing of the engine.
"""

from typing import Annotated, ClassVar, Literal, Self

from openai.types import Completion, CompletionChoice
from pydantic import Discriminator, Field, StrictInt, Tag, model_validator
from pydantic_core import PydanticCustomError

from server.schemas.common import MAX_INT, UNSUPPORTED_PARAMETER, GenerationBody, Text

MAX_PROMPTS = 128
MAX_LOGPROBS = 5

TokenId = Annotated[StrictInt, Field(ge=0, le=MAX_INT)]
TokenIds = Annotated[list[TokenId], Field(min_length=1)]


def kind_of_prompt(value: object) -> str | None:
    """Which of the four forms a `prompt` has (None: none of them), judged by its first element."""
    if isinstance(value, str):
        return "text"
    if not isinstance(value, list) or not value:
        return None
    kinds = {str: "texts", int: "token_ids", list: "token_id_lists"}
    return kinds.get(type(value[0]))


Prompt = Annotated[
    Annotated[Text, Tag("text")]
    | Annotated[list[Text], Field(max_length=MAX_PROMPTS), Tag("texts")]
    | Annotated[TokenIds, Tag("token_ids")]
    | Annotated[list[TokenIds], Field(max_length=MAX_PROMPTS), Tag("token_id_lists")],
    Discriminator(
        kind_of_prompt,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a string, or an array (not empty) of strings, of token ids or "
        "of arrays of token ids",
    ),
]


class CompletionRequest(GenerationBody):
    """The body of POST /v1/completions."""

    UNBUILT: ClassVar[dict[str, tuple[object, ...]]] = {
        **GenerationBody.UNBUILT,
        "best_of": (None, 1),
        "echo": (None, False),
        "suffix": (None, ""),
    }

    prompt: Prompt = Field(description="One prompt or several, each as text or as token ids.")
    logprobs: Annotated[StrictInt, Field(ge=0, le=MAX_LOGPROBS)] | None = Field(
        None, description="0 tells the log-probability of each chosen token; more are not supported yet."
    )

    @model_validator(mode="after")
    def _check_logprobs(self) -> Self:
        if self.logprobs:
            raise PydanticCustomError(
                UNSUPPORTED_PARAMETER,
                "'logprobs' above 0 is not supported yet; 0 tells the chosen tokens' own",
                {"param": "logprobs"},
            )
        return self

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, however they were given."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        return [prompt] if isinstance(prompt[0], int) else prompt  # the first tells all


class CompletionAnswerChoice(CompletionChoice):
    """A choice of a whole answer; the id fields only where the request asked."""

    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None


class CompletionAnswer(Completion):
    """A whole answer."""

    choices: list[CompletionAnswerChoice]  # type: ignore[assignment]  # narrower than the base's list, read only


class CompletionChunkChoice(CompletionAnswerChoice):
    """A choice of a streamed chunk: no finish reason yet, except in its last."""

    finish_reason: Literal["stop", "length", "content_filter"] | None  # type: ignore[assignment]  # null on the wire


class CompletionChunk(Completion):
    """One event of a streamed answer."""

    choices: list[CompletionChunkChoice]  # type: ignore[assignment]  # narrower than the base's list, read only
