"""Wire types of /tokenize, /detokenize and the rendering of chat prompts.

The names are those that peers use. This module knows nothing of the engine.
"""

from typing import Annotated, ClassVar, Self

from pydantic import BaseModel, Field, StrictBool, model_validator

from server.contract.fields import ContractField
from server.contract.table import DETOKENIZE, TOKENIZE
from server.schemas.chat import Messages, TemplateBody
from server.schemas.common import Text, WireModel, invalid
from server.schemas.generation import MAX_TOKEN_IDS, TokenId


class TokenizeRequest(TemplateBody, defer_build=False):
    """The body of POST /tokenize: a text or a conversation."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = TOKENIZE

    model: Text | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    return_token_strs: StrictBool | None = None

    @model_validator(mode="after")
    def _check_one_source(self) -> Self:
        if (self.prompt is None) == (self.messages is None):
            raise invalid("prompt", "One of 'prompt' and 'messages' must be given, and not both")
        return self

    @model_validator(mode="after")
    def _check_template(self) -> Self:
        for param in ("add_generation_prompt", "continue_final_message", "chat_template_kwargs"):
            if self.prompt is not None and getattr(self, param) is not None:
                raise invalid(param, f"'{param}' is about a chat template; it needs 'messages'")
        return self


class TokenizeAnswer(BaseModel):
    """Token ids, how many they are, and how many the model takes; texts only where asked for."""

    count: int
    max_model_len: int
    tokens: list[int]
    token_strs: list[str] | None = None


class DetokenizeRequest(WireModel, defer_build=False):
    """The body of POST /detokenize."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = DETOKENIZE

    model: Text | None = None
    tokens: Annotated[list[TokenId], Field(max_length=MAX_TOKEN_IDS, fail_fast=True)]


class DetokenizeAnswer(BaseModel):
    """The text of token ids, special tokens included."""

    prompt: str


class RenderedPrompt(BaseModel):
    """A conversation as the model gets it: text, token ids, and how many there are and may be."""

    model: str
    prompt: str
    token_ids: list[int]
    count: int
    max_model_len: int
