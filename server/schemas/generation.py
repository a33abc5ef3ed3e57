"""`GenerationBody`: the parameters that chat and plain completions share.

What each of them does stands in `server.contract.generation`. This module knows neither the engine
nor HTTP; limits that depend on the model or on settings are checked where those are known.
"""

import re
from typing import Annotated, ClassVar, Self

from pydantic import AfterValidator, Field, StrictBool, StrictInt, model_validator
from pydantic_core import PydanticCustomError

from server.contract.fields import ContractField
from server.contract.generation import GENERATION
from server.schemas.common import MAX_INT, Number, Stop, Text, WireModel, invalid
from server.schemas.constraint import ConstrainedBody

MAX_CHOICES = 128
MAX_TIMEOUT_S = 1e6
MAX_PRIORITY = 100
MAX_BIASES = 1024
MAX_TOKEN_IDS = 1 << 20
MAX_WORDS = 256
MAX_STOP_IDS = 256
MAX_METADATA = 16
MAX_WORD_CHARS = 256
MIN_SEED, MAX_SEED = -(2**63), 2**63 - 1
_TOKEN_ID = re.compile(r"[0-9]{1,10}")

TokenId = Annotated[StrictInt, Field(ge=0, le=MAX_INT)]
TokenIds = Annotated[list[TokenId], Field(min_length=1, max_length=MAX_TOKEN_IDS, fail_fast=True)]
Count = Annotated[StrictInt, Field(ge=0, le=MAX_INT)]
LogprobCount = Annotated[StrictInt, Field(ge=0, le=MAX_INT)]
Share = Annotated[Number, Field(ge=0, le=1)]
Penalty = Annotated[Number, Field(ge=-2, le=2)]
Word = Annotated[Text, Field(min_length=1, max_length=MAX_WORD_CHARS)]
Words = Annotated[list[Word], Field(max_length=MAX_WORDS, fail_fast=True)]


def _check_bias_keys(biases: dict[str, float]) -> dict[str, float]:
    for key in biases:
        if not _TOKEN_ID.fullmatch(key):
            message = f"'logit_bias' has the key {key[:40]!r}; keys are token ids, as '50256'"
            raise PydanticCustomError("invalid_value", "{message}", {"message": message})
    return biases


Biases = Annotated[
    dict[Text, Annotated[Number, Field(ge=-100, le=100)]],
    Field(max_length=MAX_BIASES),
    AfterValidator(_check_bias_keys),
]


class StreamOptions(WireModel):
    """What a streamed answer carries besides its chunks."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = GENERATION
    PREFIX: ClassVar[str] = "stream_options."

    include_usage: StrictBool | None = None
    include_obfuscation: StrictBool | None = None
    continuous_usage_stats: StrictBool | None = None


class GenerationBody(ConstrainedBody):
    """The parameters that chat and plain completions share; null means left out."""

    FIELDS: ClassVar[tuple[ContractField, ...]] = GENERATION

    model: Text
    n: Annotated[StrictInt, Field(ge=1, le=MAX_CHOICES)] | None = None
    truncate_prompt_tokens: Annotated[StrictInt, Field(ge=1, le=MAX_INT)] | None = None
    cache_salt: Annotated[Text, Field(min_length=1, max_length=256)] | None = None
    cache_debug: StrictBool | None = None
    priority: Annotated[StrictInt, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY)] | None = None
    timeout: Annotated[Number, Field(gt=0, le=MAX_TIMEOUT_S)] | None = None
    user: Text | None = None
    metadata: Annotated[dict[str, Text], Field(max_length=MAX_METADATA)] | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None
    prompt_cache_retention: Text | None = None
    service_tier: Text | None = None
    store: StrictBool | None = None

    temperature: Annotated[Number, Field(ge=0, le=2)] | None = None
    top_p: Share | None = None
    top_k: Annotated[StrictInt, Field(ge=-1, le=MAX_INT)] | None = None
    min_p: Share | None = None
    typical_p: Annotated[Number, Field(gt=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    repetition_penalty: Annotated[Number, Field(ge=0.01, le=100)] | None = None
    dry_multiplier: Annotated[Number, Field(ge=0, le=100)] | None = None
    dry_base: Annotated[Number, Field(ge=1, le=1000)] | None = None
    dry_allowed_length: Annotated[StrictInt, Field(ge=1, le=MAX_INT)] | None = None
    dry_sequence_breakers: Words | None = None
    dry_penalty_last_n: Annotated[StrictInt, Field(ge=-1, le=MAX_INT)] | None = None
    xtc_probability: Share | None = None
    xtc_threshold: Share | None = None
    logit_bias: Biases | None = None
    allowed_token_ids: TokenIds | None = None
    bad_words: Words | None = None
    seed: Annotated[StrictInt, Field(ge=MIN_SEED, le=MAX_SEED)] | None = None

    max_tokens: Annotated[StrictInt, Field(ge=0, le=MAX_INT)] | None = None
    min_tokens: Count | None = None
    stop: Stop | None = None
    stop_token_ids: Annotated[list[TokenId], Field(max_length=MAX_STOP_IDS, fail_fast=True)] | None = None
    ignore_eos: StrictBool | None = None
    include_stop_str_in_output: StrictBool | None = None

    skip_special_tokens: StrictBool | None = None
    spaces_between_special_tokens: StrictBool | None = None
    prompt_logprobs: LogprobCount | None = None
    return_token_ids: StrictBool | None = None
    stream: StrictBool | None = None
    stream_options: StreamOptions | None = None

    @property
    def num_word_characters(self) -> int:
        """How much text has to be encoded besides the prompt."""
        return sum(map(len, [*(self.bad_words or ()), *(self.dry_sequence_breakers or ())]))

    @property
    def has_usage(self) -> bool:
        """Whether a stream ends with its usage."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def has_running_usage(self) -> bool:
        """Whether every chunk of a stream tells the usage so far."""
        return self.has_usage and bool(self.stream_options and self.stream_options.continuous_usage_stats)

    @model_validator(mode="after")
    def _check_stream_options(self) -> Self:
        if self.stream_options is not None and not self.stream:
            raise invalid("stream_options", "'stream_options' is only allowed with 'stream': true")
        return self

    @model_validator(mode="after")
    def _check_least_tokens(self) -> Self:
        if self.max_tokens is not None and (self.min_tokens or 0) > self.max_tokens:
            raise invalid("min_tokens", f"'min_tokens' is {self.min_tokens}, above max_tokens")
        return self
