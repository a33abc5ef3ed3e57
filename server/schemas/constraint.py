"""Wire types of the fields that say what an answer must look like.

At most one of them may say something in one body. What a schema or grammar means, and whether it can be
followed, is not known here.
"""

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import ConfigDict, Discriminator, Field, JsonValue, StrictBool, Tag, model_validator

from server.contract.constraint import CONSTRAINTS
from server.contract.fields import ContractField
from server.schemas.common import Text, WireModel, invalid

MAX_CONSTRAINT_CHARS = 1 << 16
MAX_CONSTRAINT_CHOICES = 1024
MAX_DEPTH = 64
"""Objects and arrays within one another in a JSON schema."""
MAX_NAME_CHARS = 64

ConstraintText = Annotated[Text, Field(min_length=1, max_length=MAX_CONSTRAINT_CHARS)]
Choices = Annotated[
    list[Annotated[Text, Field(min_length=1, max_length=MAX_CONSTRAINT_CHARS)]],
    Field(min_length=1, max_length=MAX_CONSTRAINT_CHOICES, fail_fast=True),
]
SchemaObject = dict[str, JsonValue]


def depth_of(schema: object) -> int:
    """How many objects and arrays stand within one another in `schema`, itself included."""
    depth, level = 0, [schema]
    while level := [value for value in level if isinstance(value, Mapping | list)]:
        depth += 1
        level = [
            part for value in level for part in (value.values() if isinstance(value, Mapping) else value)
        ]
    return depth


def _kind_of_schema(value: object) -> str | None:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "text"
    return "object" if isinstance(value, dict) else None


Schema = Annotated[
    Annotated[SchemaObject, Tag("object")]
    | Annotated[ConstraintText, Tag("text")]
    | Annotated[StrictBool, Tag("bool")],
    Discriminator(
        _kind_of_schema,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a JSON schema, or one as text",
    ),
]


class JsonSchemaFormat(WireModel):
    """The schema of an answer; `strict` refuses keywords that cannot be enforced."""

    model_config = ConfigDict(serialize_by_alias=True)

    name: Annotated[Text, Field(pattern=r"^[A-Za-z0-9_.-]+$", max_length=MAX_NAME_CHARS)]
    description: Text | None = None
    strict: StrictBool | None = None
    schema_: SchemaObject | None = Field(default=None, alias="schema")


class ResponseFormat(WireModel):
    """The format of an answer: any text, any JSON object, or JSON that follows a schema."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchemaFormat | None = None

    @model_validator(mode="after")
    def _check_schema(self) -> Self:
        if (self.type == "json_schema") != (self.json_schema is not None):
            needs = "needs" if self.json_schema is None else "must not have"
            raise invalid("response_format", f"'response_format' of type '{self.type}' {needs} 'json_schema'")
        return self


class StructuredOutputs(WireModel):
    """One constraint, under the name that says its kind."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = CONSTRAINTS
    PREFIX: ClassVar[str] = "structured_outputs."

    json_: Schema | None = Field(default=None, alias="json")
    regex: ConstraintText | None = None
    choice: Choices | None = None
    grammar: ConstraintText | None = None
    json_object: StrictBool | None = None
    disable_any_whitespace: StrictBool | None = None

    @model_validator(mode="after")
    def _check_one_kind(self) -> Self:
        kinds = (self.json_, self.regex, self.choice, self.grammar, self.json_object or None)
        if sum(kind is not None for kind in kinds) != 1:
            names = "json, regex, choice, grammar, json_object"
            raise invalid("structured_outputs", f"'structured_outputs' needs exactly one of {names}")
        if self.disable_any_whitespace and self.json_ is None and not self.json_object:
            raise invalid("structured_outputs", "'disable_any_whitespace' needs json or json_object")
        return self


class ConstrainedBody(WireModel):
    """The fields of which at most one says what the answer must look like."""

    response_format: ResponseFormat | None = None
    guided_json: Schema | None = None
    guided_regex: ConstraintText | None = None
    guided_choice: Choices | None = None
    guided_grammar: ConstraintText | None = None
    structured_outputs: StructuredOutputs | None = None
    guided_decoding_backend: Text | None = None

    @property
    def constraint_param(self) -> str | None:
        """The field that says what the answer must look like; None where any text will do."""
        return next(iter(self._constraint_params()), None)

    @model_validator(mode="after")
    def _check_one_constraint(self) -> Self:
        params = self._constraint_params()
        if len(params) > 1:
            raise invalid(params[1], f"'{params[0]}' and '{params[1]}' must not both be given")
        return self

    def _constraint_params(self) -> list[str]:
        given = {
            "response_format": self.response_format is not None and self.response_format.type != "text",
            "guided_json": self.guided_json is not None,
            "guided_regex": self.guided_regex is not None,
            "guided_choice": self.guided_choice is not None,
            "guided_grammar": self.guided_grammar is not None,
            "structured_outputs": self.structured_outputs is not None,
        }
        return [name for name, is_given in given.items() if is_given]
