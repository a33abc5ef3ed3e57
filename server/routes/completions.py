"""POST /v1/completions."""

from functools import partial

from fastapi import APIRouter, Request, Response

from server.answering import (
    answer_whole,
    new_ticket,
    refuse_unknown,
    require_card,
    require_logprobs,
    require_places,
)
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.prompting import read_prompts
from server.schemas.answers import CompletionAnswer, CompletionChunk
from server.schemas.common import answers_with
from server.schemas.completions import CompletionRequest
from server.sse import TokenEventResponse
from server.streams import open_streams
from server.translate.completions import CompletionChunks, CompletionFold, to_requests
from server.translate.constraint import reading_work

MAX_LOGPROBS, MAX_PROMPT_LOGPROBS = 5, 20

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/completions",
    response_model=CompletionAnswer,
    responses=answers_with(events=CompletionChunk),
)
async def create_completion(
    body: CompletionRequest,
    request: Request,
    engine: EngineDep,
    settings: SettingsDep,
    caller: CallerDep,
) -> Response:
    """Continue one prompt or several, whole or as server-sent events."""
    card = require_card(engine, settings, body.model)
    refuse_unknown(settings, body)
    limits = {
        "logprobs": (body.logprobs, MAX_LOGPROBS),
        "prompt_logprobs": (body.prompt_logprobs, MAX_PROMPT_LOGPROBS),
    }
    require_logprobs(settings, limits)
    require_places(settings, len(body.prompts) * body.num_generated)
    prompts = await read_prompts(engine, card, body)
    ticket = new_ticket("cmpl", card, caller, body.model, settings)
    size = body.num_word_characters + reading_work(body)
    ours = await engine.consult(partial(to_requests, body, prompts, ticket), size)
    request.state.streams = streams = await open_streams(engine, ours, grammar_param=body.constraint_param)
    if body.stream:
        return TokenEventResponse(streams, CompletionChunks(body, ticket, prompts), caller.request_id)
    return await answer_whole(request.receive, streams, CompletionFold(body, ticket, prompts))
