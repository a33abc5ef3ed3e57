"""POST /v1/chat/completions."""

from fastapi import APIRouter, Request, Response

from server.answering import answer_whole, new_ticket, require_card, require_places
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.schemas.chat import ChatAnswer, ChatChunk, ChatCompletionRequest
from server.schemas.common import answers_with
from server.sse import TokenEventResponse
from server.streams import open_streams
from server.translate.chat import ChatChunks, ChatFold, to_messages, to_request

router = APIRouter(tags=["generation"])


@router.post(
    "/v1/chat/completions", response_model=ChatAnswer, responses=answers_with(ChatAnswer, events=ChatChunk)
)
async def create_chat_completion(
    body: ChatCompletionRequest,
    request: Request,
    engine: EngineDep,
    settings: SettingsDep,
    caller: CallerDep,
) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    card = require_card(engine, body.model)
    require_places(settings, body.n or 1)
    prompt_ids = await engine.render_chat(to_messages(body))
    ticket = new_ticket("chatcmpl", card, caller)
    streams = await open_streams(engine, [to_request(body, prompt_ids, ticket, max_context=card.max_context)])
    if body.stream:
        return TokenEventResponse(streams, ChatChunks(body, ticket, prompt_ids), caller.request_id)
    return await answer_whole(request.receive, streams, ChatFold(body, ticket, prompt_ids))
