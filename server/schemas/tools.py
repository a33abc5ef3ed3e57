"""Wire types of tools: what may be called, which of it must be, and the calls of earlier turns.

Also the older `functions` and `function_call`, which say the same of single functions. This module
knows neither the engine nor how a model writes a call.
"""

import json
from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

from pydantic import (
    BeforeValidator,
    Discriminator,
    Field,
    JsonValue,
    StrictBool,
    Tag,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

from server.contract.chat import CHAT
from server.contract.fields import ContractField
from server.schemas.common import UNSUPPORTED_PARAMETER, Text, WireModel, invalid
from server.schemas.constraint import MAX_DEPTH, depth_of

MAX_TOOLS = 128
MAX_CALLS = 128
MAX_NAME_CHARS = 64
MAX_DESCRIPTION_CHARS = 1 << 14
MAX_SCHEMA_CHARS = 1 << 16
MAX_ID_CHARS = 256
NAME_PATTERN = r"^[a-zA-Z0-9_-]+$"

FunctionName = Annotated[Text, Field(min_length=1, max_length=MAX_NAME_CHARS, pattern=NAME_PATTERN)]
CallId = Annotated[Text, Field(min_length=1, max_length=MAX_ID_CHARS)]


def _refuse_custom(value: object) -> object:
    """Custom tools take free text as input; none of the formats that models here write has such."""
    kind = value.get("type") if isinstance(value, dict) else None
    if kind == "custom":
        raise PydanticCustomError(
            UNSUPPORTED_PARAMETER,
            "Tools of type 'custom' are not supported; use type 'function'",
            {"param": "type"},
        )
    return value


class FunctionDefinition(WireModel):
    """A function that may be called; its `parameters` are a JSON schema of an object."""

    name: FunctionName
    description: Annotated[Text, Field(max_length=MAX_DESCRIPTION_CHARS)] | None = None
    parameters: dict[Text, JsonValue] | None = None
    strict: StrictBool | None = None

    @field_validator("parameters", mode="after")
    @classmethod
    def _check_schema(cls, schema: dict[str, JsonValue] | None) -> dict[str, JsonValue] | None:
        if schema is None:
            return None
        kind = schema.get("type", "object")
        if kind != "object":
            raise PydanticCustomError(
                "invalid_value",
                "Invalid schema for a function: it must be a JSON Schema of 'type': 'object', not {kind}",
                {"kind": repr(kind)[:60]},
            )
        if (depth := depth_of(schema)) > MAX_DEPTH:
            raise PydanticCustomError(
                "invalid_value",
                "A function's schema must be nested at most {limit} levels deep, not {depth}",
                {"limit": MAX_DEPTH, "depth": depth},
            )
        if len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
            raise PydanticCustomError(
                "invalid_value",
                "A function's schema must be at most {limit} characters",
                {"limit": MAX_SCHEMA_CHARS},
            )
        return schema


class Tool(WireModel):
    """Something that the model may use; functions are the only kind."""

    type: Literal["function"]
    function: FunctionDefinition


class NamedFunction(WireModel):
    """A function by its name."""

    name: Text


class NamedTool(WireModel):
    """A tool by its name."""

    type: Literal["function"]
    function: NamedFunction


AnyNamedTool = Annotated[NamedTool, BeforeValidator(_refuse_custom)]


class AllowedTools(WireModel):
    """A part of the tools, and whether one of them must be called."""

    mode: Literal["auto", "required"]
    tools: Annotated[list[AnyNamedTool], Field(min_length=1, max_length=MAX_TOOLS)]


class AllowedToolChoice(WireModel):
    """The choice that leaves only a part of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


def _choice_tag(value: object) -> str | None:
    if isinstance(value, str):
        return "word"
    kind = value.get("type") if isinstance(value, dict) else getattr(value, "type", None)
    return kind if kind in ("function", "allowed_tools") else None


def _function_tag(value: object) -> str | None:
    return "word" if isinstance(value, str) else "name" if isinstance(value, dict | NamedFunction) else None


ToolChoice = Annotated[
    Annotated[Literal["none", "auto", "required"], Tag("word")]
    | Annotated[NamedTool, Tag("function")]
    | Annotated[AllowedToolChoice, Tag("allowed_tools")],
    Discriminator(
        _choice_tag,
        custom_error_type="invalid_type",
        custom_error_message="Input should be none, auto, required, or an object of type function or "
        "allowed_tools",
    ),
    BeforeValidator(_refuse_custom),
]

FunctionChoice = Annotated[
    Annotated[Literal["none", "auto"], Tag("word")] | Annotated[NamedFunction, Tag("name")],
    Discriminator(
        _function_tag,
        custom_error_type="invalid_type",
        custom_error_message="Input should be none, auto, or an object with the name of a function",
    ),
]


class PastFunctionCall(WireModel):
    """A call that the model made in an earlier turn; `arguments` is the text it wrote, JSON or not."""

    name: FunctionName
    arguments: Text


class PastToolCall(WireModel):
    """The same with the id that its result refers to."""

    id: CallId
    type: Literal["function"]
    function: PastFunctionCall


PastToolCalls = Annotated[
    list[Annotated[PastToolCall, BeforeValidator(_refuse_custom)]],
    Field(max_length=MAX_CALLS, fail_fast=True),
]


class ToolBody(WireModel):
    """The fields of a body that say what may be called."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = CHAT

    tools: (
        Annotated[
            list[Annotated[Tool, BeforeValidator(_refuse_custom)]],
            Field(max_length=MAX_TOOLS, fail_fast=True),
        ]
        | None
    ) = None
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: StrictBool | None = None
    functions: (
        Annotated[list[FunctionDefinition], Field(min_length=1, max_length=MAX_TOOLS, fail_fast=True)] | None
    ) = None
    function_call: FunctionChoice | None = None

    @property
    def declared(self) -> list[FunctionDefinition]:
        """Every function of the body, by whichever field it came."""
        return [tool.function for tool in self.tools or ()] or list(self.functions or ())

    @model_validator(mode="after")
    def _check_names(self) -> Self:
        if self.tools and self.functions:
            raise invalid("functions", "'functions' and 'tools' must not both be given")
        steps = ("tools", "function") if self.tools else ("functions",)
        names: set[str] = set()
        for index, function in enumerate(self.declared):
            if function.name in names:
                where = (steps[0], index, *steps[1:], "name")
                raise complaint(where, f"The function name {function.name!r} is given twice")
            names.add(function.name)
        return self

    @model_validator(mode="after")
    def _check_choice(self) -> Self:
        if not self.tools:
            if self.tool_choice not in (None, "none", "auto"):
                raise invalid("tool_choice", "'tool_choice' is only allowed when 'tools' are specified")
            if self.parallel_tool_calls is False:
                raise invalid(
                    "parallel_tool_calls", "'parallel_tool_calls' is only allowed when 'tools' are specified"
                )
        if not self.functions and self.function_call not in (None, "none", "auto"):
            raise invalid("function_call", "'function_call' is only allowed when 'functions' are specified")
        return self

    @model_validator(mode="after")
    def _check_one_age(self) -> Self:
        """A choice says nothing about functions that came by the field of the other age."""
        if self.functions and self.tool_choice is not None:
            raise invalid("tool_choice", "'tool_choice' is for 'tools'; 'functions' need 'function_call'")
        if self.tools and self.function_call is not None:
            raise invalid("function_call", "'function_call' is for 'functions'; 'tools' need 'tool_choice'")
        return self

    @model_validator(mode="after")
    def _check_chosen(self) -> Self:
        known = {function.name for function in self.declared}
        for where, name in self._chosen():
            if name not in known:
                field = "functions" if where[0] == "function_call" else "tools"
                raise complaint(
                    where, f"Tool choice {name[:MAX_NAME_CHARS]!r} not found in '{field}' parameter"
                )
        return self

    def _chosen(self) -> Sequence[tuple[tuple[str | int, ...], str]]:
        """Every function that a choice names, with the place where it does."""
        if isinstance(self.function_call, NamedFunction):
            return [(("function_call", "name"), self.function_call.name)]
        if isinstance(self.tool_choice, NamedTool):
            return [(("tool_choice", "function", "name"), self.tool_choice.function.name)]
        if isinstance(self.tool_choice, AllowedToolChoice):
            place = ("tool_choice", "allowed_tools", "tools")
            tools = self.tool_choice.allowed_tools.tools
            return [((*place, i, "function", "name"), tool.function.name) for i, tool in enumerate(tools)]
        return []


def complaint(where: tuple[str | int, ...], message: str) -> PydanticCustomError:
    """The complaint about a place that is further inside than the model which complains."""
    return PydanticCustomError("invalid_value", "{message}", {"param": where, "message": message})
