"""Wire types of what the generating endpoints answer: OpenAI's, as far as they are said here, and our additions.

Names and types are OpenAI's, so that the official clients read the answers as their own. The order of
the fields is their order on the wire. A field with a default is left out where nothing was said of it;
every other one is always there. This module knows nothing of the engine.
"""

from typing import Any, Literal

from pydantic import BaseModel

ChatFinishReason = Literal["stop", "length", "tool_calls", "function_call"]
PromptLogprobs = list[dict[str, Any] | None]  # Any: entries are written as they are


class CompletionTokensDetails(BaseModel):
    """Of what kinds the generated tokens are."""

    accepted_prediction_tokens: int
    audio_tokens: int
    reasoning_tokens: int
    rejected_prediction_tokens: int


class PromptTokensDetails(BaseModel):
    """Of what kinds a prompt's tokens are."""

    audio_tokens: int
    cached_tokens: int


class CompletionUsage(BaseModel):
    """The tokens of an answer, and of the prompts it answers."""

    completion_tokens: int
    prompt_tokens: int
    total_tokens: int
    completion_tokens_details: CompletionTokensDetails
    prompt_tokens_details: PromptTokensDetails


class CacheDebug(BaseModel):
    """What the prefix cache knew of a prompt; `miss_reason` is null where it could know no more.

    `first_missing_block` is the number of the first block of `block_size` tokens that was looked for
    and not found; `evicted_s_ago` how long ago it made room for something else, where it did.
    """

    matched_tokens: int
    block_size: int
    miss_reason: str | None
    first_missing_block: int | None
    evicted_s_ago: float | None


class TopLogprob(BaseModel):
    """A token that might have stood in a place, with its bytes and log-probability."""

    token: str
    bytes: list[int]
    logprob: float


class ChatCompletionTokenLogprob(TopLogprob):
    """A token of an answer; `top_logprobs` are the best alternatives, itself among them where it is one."""

    top_logprobs: list[TopLogprob]


class ChoiceLogprobs(BaseModel):
    """The log-probabilities of a choice's tokens."""

    content: list[ChatCompletionTokenLogprob]
    refusal: list[ChatCompletionTokenLogprob] | None


class FunctionCall(BaseModel):
    """A call of a function, with its arguments as JSON text, which the model may have got wrong."""

    arguments: str
    name: str


class ToolCall(BaseModel):
    """A call of a tool that is a function."""

    id: str
    function: FunctionCall
    type: Literal["function"]


class ChatAnswerMessage(BaseModel):
    """What the model answered; its reasoning, under both names that clients know, where there is any."""

    content: str | None
    refusal: str | None
    role: Literal["assistant"]
    function_call: FunctionCall | None = None
    tool_calls: list[ToolCall] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatAnswerChoice(BaseModel):
    """A choice of a whole answer; `token_ids` only where the request asked."""

    finish_reason: ChatFinishReason
    index: int
    logprobs: ChoiceLogprobs | None
    message: ChatAnswerMessage
    token_ids: list[int] | None = None


class ChatAnswer(BaseModel):
    """A whole answer; what stands behind `usage` only where the request asked."""

    id: str
    choices: list[ChatAnswerChoice]
    created: int
    model: str
    object: Literal["chat.completion"]
    system_fingerprint: str
    usage: CompletionUsage
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None
    cache_debug: CacheDebug | None = None


class FunctionCallDelta(BaseModel):
    """What a chunk adds to a call: its name, once, then pieces of its arguments."""

    arguments: str
    name: str | None = None


class ToolCallDelta(BaseModel):
    """What a chunk adds to the call of number `index`; id and type come once."""

    index: int
    id: str | None = None
    function: FunctionCallDelta
    type: Literal["function"] | None = None


class ChatDelta(BaseModel):
    """What a chunk adds to a message; `reasoning` and `reasoning_content` say the same."""

    content: str | None = None
    function_call: FunctionCallDelta | None = None
    refusal: str | None = None
    role: Literal["assistant"] | None = None
    tool_calls: list[ToolCallDelta] | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None


class ChatChunkChoice(BaseModel):
    """A choice of a streamed chunk; `token_ids` only where the request asked."""

    delta: ChatDelta
    index: int
    finish_reason: ChatFinishReason | None
    logprobs: ChoiceLogprobs | None
    token_ids: list[int] | None = None


class ChatChunk(BaseModel):
    """One event of a streamed answer; what the request asked about its prompt is in the first."""

    id: str
    choices: list[ChatChunkChoice]
    created: int
    model: str
    object: Literal["chat.completion.chunk"]
    system_fingerprint: str
    usage: CompletionUsage | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None
    cache_debug: CacheDebug | None = None


class CompletionLogprobs(BaseModel):
    """Log-probabilities in parallel lists. They may begin with a prompt, whose first token has none."""

    text_offset: list[int]
    token_logprobs: list[float | None]
    tokens: list[str]
    top_logprobs: list[dict[str, float] | None] | None


class CompletionChunkChoice(BaseModel):
    """A choice of a streamed chunk: no finish reason yet, except in its last.

    What stands behind `text` is there only where the request asked.
    """

    finish_reason: Literal["stop", "length"] | None
    index: int
    logprobs: CompletionLogprobs | None
    text: str
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None
    cache_debug: CacheDebug | None = None


class CompletionAnswerChoice(CompletionChunkChoice):
    """A choice of a whole answer, which has ended."""

    finish_reason: Literal["stop", "length"]


class CompletionAnswer(BaseModel):
    """A whole answer."""

    id: str
    choices: list[CompletionAnswerChoice]
    created: int
    model: str
    object: Literal["text_completion"]
    system_fingerprint: str
    usage: CompletionUsage


class CompletionChunk(BaseModel):
    """One event of a streamed answer."""

    id: str
    choices: list[CompletionChunkChoice]
    created: int
    model: str
    object: Literal["text_completion"]
    system_fingerprint: str
    usage: CompletionUsage | None = None
