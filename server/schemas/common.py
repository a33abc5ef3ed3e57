"""Wire types that the endpoints share: the error envelope, and what the request bodies have in common.

A body's fields are exactly the parameters that work and the hints. What is refused is in the tables
of `server.contract`, which also describe each field. This module knows neither the engine nor HTTP.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Strict,
    StrictStr,
    Tag,
    model_validator,
)
from pydantic_core import PydanticCustomError

from server.contract.fields import ContractField, Status

MAX_STOP_STRINGS = 4
MAX_STOP_CHARS = 1024
MAX_INT = 2**31 - 1
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


class ClearedCache(BaseModel):
    """What an order to clear the prefix cache did."""

    num_forgotten_blocks: int


class Model(BaseModel):
    """A name of the served model, as OpenAI describes one; `created` is in seconds since the epoch."""

    id: str
    created: int
    object: Literal["model"]
    owned_by: str
    shutdown_date: str | None = None


class ModelList(BaseModel):
    """The served models, as OpenAI lists them."""

    object: Literal["list"]
    data: list[Model]


def answers_with(
    *, events: type[BaseModel] | None = None
) -> dict[int | str, dict[str, Any]]:  # Any: FastAPI's own type for documented answers
    """The answers of a route for the OpenAPI document; a stream's `events` are data lines, then [DONE]."""
    answers: dict[int | str, dict[str, Any]] = {  # Any: as above
        "4XX": {"model": ErrorEnvelope, "description": "The request cannot be served as it is"},
        "5XX": {"model": ErrorEnvelope, "description": "The server cannot serve the request, or not now"},
    }
    if events is not None:
        schema = {"type": "string", "description": f"data: lines of {events.__name__}, then data: [DONE]"}
        answers[200] = {
            "description": "The answer; with stream, as server-sent events",
            "content": {"text/event-stream": {"schema": schema}},
        }
    return answers


def _describe(schema: dict[str, Any], model: type["WireModel"]) -> None:  # Any: pydantic's own type
    """Give each property its words from the contract; a field beyond them is refused."""
    schema["additionalProperties"] = False
    for name, field in model.NAMED.items():
        if name in schema.get("properties", {}):
            schema["properties"][name]["description"] = field.note


class WireModel(BaseModel):
    """A piece of a request body, whose fields are described by `FIELDS` under the name `PREFIX` + field.

    Unknown fields are kept aside: `unknown_fields` finds them, and who takes the body decides.
    A piece is built with the bodies that it is part of; a body that a route takes has to be built at once,
    and says so: `defer_build=False`.
    """

    FIELDS: ClassVar[tuple[ContractField, ...]] = ()
    PREFIX: ClassVar[str] = ""
    NAMED: ClassVar[dict[str, ContractField]] = {}  # the fields of this piece, by their names in it
    REFUSED: ClassVar[dict[str, ContractField]] = {}

    model_config = ConfigDict(extra="allow", json_schema_extra=_describe, defer_build=True)

    @classmethod
    def __pydantic_init_subclass__(cls, **_: object) -> None:
        """Work out once which of the contract's fields belong to this piece."""
        cut = len(cls.PREFIX)
        named = {f.name[cut:]: f for f in cls.FIELDS if f.name.startswith(cls.PREFIX)}
        cls.NAMED = {name: field for name, field in named.items() if not set(name) & set(".[")}
        cls.REFUSED = {name: f for name, f in cls.NAMED.items() if f.status is Status.REFUSED}

    @model_validator(mode="before")
    @classmethod
    def _refuse_by_contract(cls, body: object) -> object:
        if not isinstance(body, dict):
            return body
        for name, field in cls.REFUSED.items():
            if not field.is_neutral(body.get(name)):
                raise PydanticCustomError(
                    UNSUPPORTED_PARAMETER,
                    "'{param}' with this value is not supported here; leave it out. {note}",
                    {"param": name, "note": field.note},
                )
        return {name: value for name, value in body.items() if name not in cls.REFUSED}


def unknown_fields(piece: WireModel, location: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """Where `piece` and the pieces in it have fields that nobody knows."""
    yield from ((*location, name) for name in piece.model_extra or ())
    for name in type(piece).model_fields:
        value = getattr(piece, name)
        if isinstance(value, WireModel):
            yield from unknown_fields(value, (*location, name))
        elif isinstance(value, list):
            for index, item in enumerate(value):
                if isinstance(item, WireModel):
                    yield from unknown_fields(item, (*location, name, index))


def invalid(param: str, message: str) -> PydanticCustomError:
    """The complaint that `param` has a value, or stands beside another, that cannot be."""
    return PydanticCustomError("invalid_value", "{message}", {"param": param, "message": message})


def text_or_list(value: object) -> str | None:
    """The tag of a field that may be a string or an array (None: it is neither)."""
    if isinstance(value, str):
        return "text"
    return "list" if isinstance(value, list) else None


Stop = Annotated[
    Annotated[StopString, Tag("text")]
    | Annotated[list[StopString], Field(max_length=MAX_STOP_STRINGS, fail_fast=True), Tag("list")],
    Discriminator(
        text_or_list,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a string or an array of strings",
    ),
]
