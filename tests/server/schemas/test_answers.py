"""Our answers against the official client's own types, which are what callers read them into."""

from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from openai import types as openai_types
from openai.types import chat, completion_choice, completion_usage
from openai.types.chat import chat_completion, chat_completion_chunk, chat_completion_message
from openai.types.chat import chat_completion_message_function_tool_call as function_tool_call
from openai.types.chat import chat_completion_token_logprob as token_logprob
from pydantic import BaseModel

from server.schemas import answers, common

THEIRS: dict[type[BaseModel], tuple[type[BaseModel], ...]] = {
    common.Model: (openai_types.Model,),
    answers.CompletionTokensDetails: (completion_usage.CompletionTokensDetails,),
    answers.PromptTokensDetails: (completion_usage.PromptTokensDetails,),
    answers.CompletionUsage: (openai_types.CompletionUsage,),
    answers.TopLogprob: (token_logprob.TopLogprob,),
    answers.ChatCompletionTokenLogprob: (chat.ChatCompletionTokenLogprob,),
    answers.ChoiceLogprobs: (chat_completion.ChoiceLogprobs, chat_completion_chunk.ChoiceLogprobs),
    answers.FunctionCall: (chat_completion_message.FunctionCall, function_tool_call.Function),
    answers.ToolCall: (chat.ChatCompletionMessageFunctionToolCall,),
    answers.ChatAnswerMessage: (chat.ChatCompletionMessage,),
    answers.ChatAnswerChoice: (chat_completion.Choice,),
    answers.ChatAnswer: (chat.ChatCompletion,),
    answers.FunctionCallDelta: (
        chat_completion_chunk.ChoiceDeltaFunctionCall,
        chat_completion_chunk.ChoiceDeltaToolCallFunction,
    ),
    answers.ToolCallDelta: (chat_completion_chunk.ChoiceDeltaToolCall,),
    answers.ChatDelta: (chat_completion_chunk.ChoiceDelta,),
    answers.ChatChunkChoice: (chat_completion_chunk.Choice,),
    answers.ChatChunk: (chat.ChatCompletionChunk,),
    answers.CompletionLogprobs: (completion_choice.Logprobs,),
    answers.CompletionChunkChoice: (openai_types.CompletionChoice,),
    answers.CompletionAnswerChoice: (openai_types.CompletionChoice,),
    answers.CompletionAnswer: (openai_types.Completion,),
    answers.CompletionChunk: (openai_types.Completion,),
}
ABOUT_PROMPTS = {"prompt_token_ids", "prompt_logprobs", "cache_debug"}
ADDED: dict[type[BaseModel], set[str]] = {
    answers.ChatAnswerMessage: {"reasoning", "reasoning_content"},
    answers.ChatAnswerChoice: {"token_ids"},
    answers.ChatAnswer: ABOUT_PROMPTS,
    answers.ChatDelta: {"reasoning", "reasoning_content"},
    answers.ChatChunkChoice: {"token_ids"},
    answers.ChatChunk: ABOUT_PROMPTS,
    answers.CompletionChunkChoice: {"token_ids"} | ABOUT_PROMPTS,
    answers.CompletionAnswerChoice: {"token_ids"} | ABOUT_PROMPTS,
}
NULL_ON_THE_WIRE = {
    (answers.CompletionLogprobs, "token_logprobs"),
    (answers.CompletionLogprobs, "top_logprobs"),
    (answers.CompletionChunkChoice, "finish_reason"),
}
"""Where OpenAI's API says null although its client's types do not: a first token, a choice under way."""

PAIRS = [(ours, theirs) for ours, both in THEIRS.items() for theirs in both]
IDS = [f"{ours.__name__} {theirs.__name__}" for ours, theirs in PAIRS]

USAGE = {
    "completion_tokens": 2,
    "prompt_tokens": 1,
    "total_tokens": 3,
    "completion_tokens_details": {
        "accepted_prediction_tokens": 0,
        "audio_tokens": 0,
        "reasoning_tokens": 1,
        "rejected_prediction_tokens": 0,
    },
    "prompt_tokens_details": {"audio_tokens": 0, "cached_tokens": 1},
}
HEAD = {"id": "x", "created": 1, "model": "m", "system_fingerprint": "fp", "usage": USAGE}
TOKEN = {"token": "a", "bytes": [97], "logprob": -0.5}
CHAT_LOGPROBS = {"content": [{**TOKEN, "top_logprobs": [TOKEN]}], "refusal": None}
FUNCTION = {"arguments": "{}", "name": "f"}
CALL = {"id": "c", "type": "function", "function": FUNCTION}
ABOUT_PROMPT = {
    "prompt_token_ids": [1],
    "prompt_logprobs": [None, {"1": {"logprob": -0.5, "rank": 1, "decoded_token": "a"}}],
    "cache_debug": {
        "matched_tokens": 16,
        "block_size": 16,
        "miss_reason": "evicted",
        "first_missing_block": 1,
        "evicted_s_ago": 0.5,
    },
}
MESSAGE = {
    "content": "a",
    "refusal": None,
    "role": "assistant",
    "function_call": FUNCTION,
    "reasoning": "r",
    "reasoning_content": "r",
}
ENDED = {"index": 0, "finish_reason": "stop", "token_ids": [1]}
COMPLETION = {
    **HEAD,
    "object": "text_completion",
    "choices": [
        {
            **ENDED,
            "text": "a",
            "logprobs": {
                "tokens": ["a"],
                "token_logprobs": [-0.5],
                "top_logprobs": [{"a": -0.5}],
                "text_offset": [0],
            },
            **ABOUT_PROMPT,
        }
    ],
}
EXAMPLES: dict[type[BaseModel], dict[str, object]] = {
    common.Model: {"id": "m", "created": 1, "object": "model", "owned_by": "o", "shutdown_date": None},
    answers.ChatAnswer: {
        **HEAD,
        "object": "chat.completion",
        "choices": [{**ENDED, "message": {**MESSAGE, "tool_calls": [CALL]}, "logprobs": CHAT_LOGPROBS}],
        **ABOUT_PROMPT,
    },
    answers.ChatChunk: {
        **HEAD,
        "object": "chat.completion.chunk",
        "choices": [
            {
                **ENDED,
                "delta": {**MESSAGE, "tool_calls": [{"index": 0, **CALL}]},
                "logprobs": CHAT_LOGPROBS,
            }
        ],
        **ABOUT_PROMPT,
    },
    answers.CompletionAnswer: COMPLETION,
    answers.CompletionChunk: COMPLETION,
}


def fits(ours: object, theirs: object) -> bool:
    """Whether every value of the type `ours` is one of the type `theirs`."""
    if get_origin(theirs) is Annotated:
        return fits(ours, get_args(theirs)[0])
    if get_origin(ours) in (Union, UnionType):
        return all(fits(arm, theirs) for arm in get_args(ours))
    if get_origin(theirs) in (Union, UnionType):
        return any(fits(ours, arm) for arm in get_args(theirs))
    if get_origin(ours) is Literal:
        return get_origin(theirs) is Literal and set(get_args(ours)) <= set(get_args(theirs))
    if get_origin(ours) in (list, dict):
        pairs = zip(get_args(ours), get_args(theirs), strict=True)
        return get_origin(theirs) is get_origin(ours) and all(fits(*pair) for pair in pairs)
    return ours is theirs or theirs in THEIRS.get(ours, ())


def without_null(annotation: object) -> object:
    """The type without null, in a list or as it stands."""
    if get_origin(annotation) is list:
        return list[without_null(get_args(annotation)[0])]
    arms = [without_null(arm) for arm in get_args(annotation) if arm is not NoneType]
    return Union[tuple(arms)] if get_origin(annotation) in (Union, UnionType) else annotation  # noqa: UP007  computed


def models_in(annotation: Any) -> set[type[BaseModel]]:
    """Our models that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}
    return {model for part in get_args(annotation) for model in models_in(part)}


def names_beyond(told: BaseModel) -> set[str]:
    """The fields, anywhere in what the official client read, that its types do not name."""
    names = set(told.model_extra or ())
    for value in dict(told).values():
        for part in value if isinstance(value, list) else [value]:
            names |= names_beyond(part) if isinstance(part, BaseModel) else set()
    return names


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=IDS)
def test_what_their_type_requires_ours_always_has(ours, theirs):
    required = {name for name, field in theirs.model_fields.items() if field.is_required()}
    always = {name for name, field in ours.model_fields.items() if field.is_required()}

    assert required <= always


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=IDS)
def test_what_their_type_does_not_have_is_one_of_our_additions(ours, theirs):
    assert ours.model_fields.keys() - theirs.model_fields.keys() == ADDED.get(ours, set())


@pytest.mark.parametrize(("ours", "theirs"), PAIRS, ids=IDS)
def test_each_field_is_of_their_type_or_a_narrower_one(ours, theirs):
    for name in ours.model_fields.keys() & theirs.model_fields.keys():
        annotation = ours.model_fields[name].annotation
        if (ours, name) in NULL_ON_THE_WIRE:
            assert not fits(annotation, theirs.model_fields[name].annotation), name
            annotation = without_null(annotation)
        assert fits(annotation, theirs.model_fields[name].annotation), name


def test_every_model_of_an_answer_is_compared_with_theirs():
    reached = {
        model
        for ours in THEIRS
        for name, field in ours.model_fields.items()
        if name not in ADDED.get(ours, ())
        for model in models_in(field.annotation)
    }

    assert reached <= THEIRS.keys()


@pytest.mark.parametrize("ours", EXAMPLES, ids=lambda ours: ours.__name__)
def test_the_official_client_reads_a_full_answer_strictly(ours):
    told = ours.model_validate(EXAMPLES[ours], strict=True).model_dump_json(exclude_unset=True)
    (theirs,) = THEIRS[ours]

    read = theirs.model_validate_json(told, strict=True)

    assert read.model_dump(exclude_unset=True) == EXAMPLES[ours]
    assert names_beyond(read) <= set().union(*ADDED.values())
