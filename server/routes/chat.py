"""POST /v1/chat/completions, and /render below it, which shows the prompt and generates nothing."""

from fastapi import APIRouter, Request, Response

from engine import Request as EngineRequest
from engine import Tokenizer
from server.answering import (
    answer_whole,
    new_ticket,
    refuse_unknown,
    require_card,
    require_logprobs,
    require_places,
)
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.prompting import dialect_of, render_conversation
from server.schemas.answers import ChatAnswer, ChatChunk
from server.schemas.chat import ChatCompletionRequest
from server.schemas.common import answers_with
from server.schemas.tokens import RenderedPrompt
from server.sse import TokenEventResponse
from server.streams import open_streams
from server.translate.call_plan import plan_calls
from server.translate.chat import ChatChunks, ChatFold, to_request
from server.translate.constraint import body_rule, reading_work

MAX_TOP_LOGPROBS = 20

router = APIRouter(tags=["generation"])


@router.post("/v1/chat/completions", response_model=ChatAnswer, responses=answers_with(events=ChatChunk))
async def create_chat_completion(
    body: ChatCompletionRequest,
    request: Request,
    engine: EngineDep,
    settings: SettingsDep,
    caller: CallerDep,
) -> Response:
    """Answer a conversation, whole or as server-sent events."""
    card = require_card(engine, settings, body.model)
    _check(body, settings)
    rendered = await render_conversation(engine, settings, body, card.max_context)
    prompt_ids, plan, dialect = rendered.token_ids, plan_calls(body), dialect_of(engine, settings)
    rules = dialect.answer_rules(plan, rendered.text)
    ticket = new_ticket("chatcmpl", card, caller, body.model, settings)

    def requested(tokenizer: Tokenizer) -> EngineRequest:
        ours = to_request(body, prompt_ids, ticket, max_context=card.max_context, encoder=tokenizer)
        return dialect.applied(ours, plan, rendered.text, body_rule(body))

    size = body.num_word_characters + reading_work(body, plan)
    ours = await engine.consult(requested, size)
    grammar_param = body.constraint_param or ("tools" if body.tools else "functions")
    request.state.streams = streams = await open_streams(engine, [ours], grammar_param=grammar_param)
    if body.stream:
        return TokenEventResponse(streams, ChatChunks(body, ticket, prompt_ids, rules), caller.request_id)
    return await answer_whole(request.receive, streams, ChatFold(body, ticket, prompt_ids, rules))


@router.post("/v1/chat/completions/render", responses=answers_with())
async def render_chat_completion(
    body: ChatCompletionRequest, engine: EngineDep, settings: SettingsDep, _: CallerDep
) -> RenderedPrompt:
    """Show the exact prompt, text and token ids, that the same body would be answered from."""
    card = require_card(engine, settings, body.model)
    _check(body, settings)
    rendered = await render_conversation(engine, settings, body)
    return RenderedPrompt(
        model=body.model,
        prompt=rendered.text,
        token_ids=list(rendered.token_ids),
        count=len(rendered.token_ids),
        max_model_len=card.max_context,
    )


def _check(body: ChatCompletionRequest, settings: SettingsDep) -> None:
    refuse_unknown(settings, body)
    asked = {"top_logprobs": body.top_logprobs, "prompt_logprobs": body.prompt_logprobs}
    require_logprobs(settings, {param: (number, MAX_TOP_LOGPROBS) for param, number in asked.items()})
    require_places(settings, body.n or 1)
