"""Wire types that the endpoints share: the error envelope, and what the request bodies have in common.

A body's fields are exactly the parameters that work. What OpenAI documents and this server does not
do is in `UNBUILT`: it passes with a value that asks for nothing, and is refused by name otherwise.
This module knows neither the engine nor HTTP.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from openai.types import Model
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StrictBool,
    StrictInt,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

MAX_CHOICES = 128
MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 1024
MAX_INT = 2**31 - 1
MIN_SEED, MAX_SEED = -(2**63), 2**63 - 1
UNSUPPORTED_PARAMETER = "unsupported_parameter"


def without_lone_surrogates(text: str) -> str:
    """`text`, if UTF-8 can hold it: JSON can spell half of a surrogate pair, which is no character."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise PydanticCustomError("invalid_value", "Input must not hold a lone surrogate") from error
    return text


Text = Annotated[StrictStr, AfterValidator(without_lone_surrogates)]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
StopString = Annotated[Text, Field(min_length=1, max_length=MAX_STOP_CHARS)]


class ErrorBody(BaseModel):
    """What went wrong: for people, for programs, and which parameter is to blame (null: none)."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """The body of every answer that is not a success."""

    error: ErrorBody


class LoadReport(BaseModel):
    """How busy the engine is."""

    num_running: int
    num_waiting: int
    num_free_blocks: int
    num_steps: int


class HealthReport(BaseModel):
    """How the engine does: its state in one word, what it is doing, which process it is by now."""

    state: str
    detail: str
    generation: int
    num_restarts: int
    load: LoadReport


class ModelList(BaseModel):
    """The served models, as OpenAI lists them."""

    object: Literal["list"]
    data: list[Model]


def answers_with(
    whole: type[BaseModel] | None = None, *, events: type[BaseModel] | None = None
) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type for documented answers
    """The answers of a route for the OpenAPI document; a stream's `events` are data lines, then [DONE]."""
    answers: dict[int | str, dict[str, Any]] = {  # Any: as above
        "4XX": {"model": ErrorEnvelope, "description": "The request cannot be served as it is"},
        "5XX": {"model": ErrorEnvelope, "description": "The server cannot serve the request, or not now"},
    }
    if whole is not None and events is not None:
        schema = {"type": "string", "description": f"data: lines of {events.__name__}, then data: [DONE]"}
        answers[200] = {
            "model": whole,
            "description": "The answer; with stream, as server-sent events",
            "content": {"text/event-stream": {"schema": schema}},
        }
    return answers


class WireModel(BaseModel):
    """A piece of a request body; an unknown field is refused."""

    model_config = ConfigDict(extra="forbid")


class StreamOptions(WireModel):
    """What a streamed answer carries besides its chunks."""

    include_usage: StrictBool | None = Field(None, description="End with a chunk that tells the usage.")
    include_obfuscation: StrictBool | None = Field(None, description="Accepted, without effect.")


def text_or_list(value: object) -> str | None:
    """The tag of a field that may be a string or an array (None: it is neither)."""
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else None


Stop = Annotated[
    Annotated[StopString, Tag("text")]
    | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS), Tag("list")],
    Discriminator(
        text_or_list,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a string or an array of strings",
    ),
]


class GenerationBody(WireModel):
    """The parameters that chat and plain completions share."""

    UNBUILT: ClassVar[dict[str, tuple[object, ...]]] = {
        "frequency_penalty": (None, 0, 0.0),
        "presence_penalty": (None, 0, 0.0),
        "logit_bias": (None, {}),
    }

    model: Text = Field(description="Id of the served model, as /v1/models lists it.")
    n: Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)] | None = Field(
        None, description="Choices for each prompt; 1 if left out."
    )
    stream: StrictBool | None = Field(None, description="Answer with server-sent events.")
    stream_options: StreamOptions | None = Field(None, description="Only with stream.")
    temperature: Annotated[Number, Field(ge=0, le=2)] | None = Field(
        None, description="0 always takes the most probable token; 1 if left out."
    )
    top_p: Annotated[Number, Field(ge=0, le=1)] | None = Field(
        None, description="Draw from the most probable tokens that make up this share; 1 if left out."
    )
    top_k: Annotated[StrictInt, Field(ge=-1, le=MAX_INT)] | None = Field(
        None, description="Draw from this many most probable tokens; 0 or -1 means all (beyond OpenAI)."
    )
    max_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_INT)] | None = Field(
        None, description="Most tokens of one choice."
    )
    stop: Stop | None = Field(None, description="One string, or up to four, before which a choice ends.")
    seed: Annotated[StrictInt, Field(ge=MIN_SEED, le=MAX_SEED)] | None = Field(
        None, description="The same seed and parameters give the same answer; random if left out."
    )
    ignore_eos: StrictBool | None = Field(
        None, description="Go on past the model's end-of-sequence tokens (beyond OpenAI)."
    )
    return_token_ids: StrictBool | None = Field(
        None, description="Add token_ids and prompt_token_ids to the answer (beyond OpenAI)."
    )
    user: Text | None = Field(None, description="Accepted, without effect.")

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_unbuilt(cls, body: object) -> object:
        if not isinstance(body, dict):
            return body
        refused = next((name for name in cls.UNBUILT if not cls._is_neutral(name, body.get(name))), None)
        if refused is not None:
            raise PydanticCustomError(
                UNSUPPORTED_PARAMETER,
                "'{param}' with this value is not supported yet; leave it out",
                {"param": refused},
            )
        return {
            name: value for name, value in body.items() if name in cls.model_fields or name not in cls.UNBUILT
        }

    @classmethod
    def _is_neutral(cls, name: str, value: object) -> bool:
        return any(type(value) is type(neutral) and value == neutral for neutral in cls.UNBUILT[name])

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError(
                "invalid_value",
                "'stream_options' is only allowed with 'stream': true",
                {"param": "stream_options"},
            )
        return self
