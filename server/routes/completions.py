"""POST /v1/completions."""

from fastapi import APIRouter, Request, Response

from server.answering import answer_whole, new_ticket, require_card, require_places
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.schemas.common import answers_with
from server.schemas.completions import CompletionAnswer, CompletionChunk, CompletionRequest
from server.sse import TokenEventResponse
from server.streams import open_streams
from server.translate.completions import CompletionChunks, CompletionFold, to_requests

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/completions",
    response_model=CompletionAnswer,
    responses=answers_with(CompletionAnswer, events=CompletionChunk),
)
async def create_completion(
    body: CompletionRequest,
    request: Request,
    engine: EngineDep,
    settings: SettingsDep,
    caller: CallerDep,
) -> Response:
    """Continue one prompt or several, whole or as server-sent events."""
    card = require_card(engine, body.model)
    prompts = body.prompts
    require_places(settings, len(prompts) * (body.n or 1))
    prompt_ids = [await engine.encode(p) if isinstance(p, str) else tuple(p) for p in prompts]
    ticket = new_ticket("cmpl", card, caller)
    streams = await open_streams(engine, to_requests(body, prompt_ids, ticket))
    if body.stream:
        return TokenEventResponse(streams, CompletionChunks(body, ticket, prompt_ids), caller.request_id)
    return await answer_whole(request.receive, streams, CompletionFold(body, ticket, prompt_ids))
