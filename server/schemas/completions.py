"""Wire types of plain completions: the request body. This module knows nothing of the engine."""

from typing import Annotated, ClassVar, Self

from pydantic import Discriminator, Field, StrictBool, StrictInt, Tag, model_validator

from server.contract.fields import ContractField
from server.contract.generation import COMPLETIONS
from server.schemas.common import Text, invalid
from server.schemas.generation import MAX_CHOICES, GenerationBody, LogprobCount, TokenIds

MAX_PROMPTS = 128


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
    | Annotated[list[Text], Field(max_length=MAX_PROMPTS, fail_fast=True), Tag("texts")]
    | Annotated[TokenIds, Tag("token_ids")]
    | Annotated[list[TokenIds], Field(max_length=MAX_PROMPTS, fail_fast=True), Tag("token_id_lists")],
    Discriminator(
        kind_of_prompt,
        custom_error_type="invalid_type",
        custom_error_message="Input should be a string, or an array (not empty) of strings, of token ids or "
        "of arrays of token ids",
    ),
]


class CompletionRequest(GenerationBody, defer_build=False):
    """The body of POST /v1/completions."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = COMPLETIONS

    prompt: Prompt
    logprobs: LogprobCount | None = None
    echo: StrictBool | None = None
    best_of: Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)] | None = None
    suffix: Text | None = None
    add_special_tokens: StrictBool | None = None

    @property
    def prompts(self) -> list[str] | list[list[int]]:
        """The prompts as a list, however they were given."""
        prompt = self.prompt
        if isinstance(prompt, str):
            return [prompt]
        return [prompt] if isinstance(prompt[0], int) else prompt  # the first tells all

    @property
    def num_shown(self) -> int:
        """Choices of one prompt in the answer."""
        return self.n or 1

    @property
    def num_generated(self) -> int:
        """Choices of one prompt that are generated; the best of them are shown."""
        return self.best_of or self.num_shown

    @property
    def scores_prompt(self) -> bool:
        """Whether the answer needs log-probabilities of the prompt, or nothing but the prompt."""
        is_scored = bool(self.echo) and (self.logprobs is not None or self.max_tokens == 0)
        return is_scored or self.prompt_logprobs is not None

    @model_validator(mode="after")
    def _check_best_of(self) -> Self:
        if self.num_generated < self.num_shown:
            raise invalid("best_of", f"'best_of' is {self.best_of}, below n, which is {self.n}")
        if self.stream and self.num_generated > self.num_shown:
            raise invalid("best_of", "'best_of' above n cannot be streamed: the best is known at the end")
        return self

    @model_validator(mode="after")
    def _check_no_tokens(self) -> Self:
        if self.max_tokens == 0 and not self.scores_prompt:
            raise invalid(
                "max_tokens", "'max_tokens' is 0, which needs echo or prompt_logprobs; it must be at least 1"
            )
        return self

    @model_validator(mode="after")
    def _check_suffix(self) -> Self:
        if self.suffix and self.echo:
            raise invalid("suffix", "'suffix' and 'echo' must not both be given")
        return self
