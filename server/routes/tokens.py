"""POST /tokenize and POST /detokenize: what the tokenizer does, without generating."""

from fastapi import APIRouter, Response

from engine import Tokenizer
from server.answering import refuse_unknown, require_card
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.prompting import refuse_foreign, render_for_tokenize
from server.schemas.common import answers_with
from server.schemas.tokens import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest
from server.translate.logprobs import spelled

router = APIRouter(tags=["tokens"])


@router.post("/tokenize", response_model=TokenizeAnswer, responses=answers_with())
async def tokenize(body: TokenizeRequest, engine: EngineDep, settings: SettingsDep, _: CallerDep) -> Response:
    """Encode a text, or a conversation as its chat prompt."""
    card = require_card(engine, settings, engine.model_id if body.model is None else body.model)
    refuse_unknown(settings, body)
    token_ids = await render_for_tokenize(engine, settings, body)

    def written(tokenizer: Tokenizer) -> str:
        answer = TokenizeAnswer(count=len(token_ids), max_model_len=card.max_context, tokens=list(token_ids))
        if body.return_token_strs:
            answer.token_strs = [spelled(tokenizer.token_bytes(token_id)) for token_id in token_ids]
        return answer.model_dump_json(exclude_unset=True)

    return Response(await engine.consult(written, len(token_ids)), media_type="application/json")


@router.post("/detokenize", responses=answers_with())
async def detokenize(
    body: DetokenizeRequest, engine: EngineDep, settings: SettingsDep, _: CallerDep
) -> DetokenizeAnswer:
    """Decode token ids, special tokens included."""
    card = require_card(engine, settings, engine.model_id if body.model is None else body.model)
    refuse_unknown(settings, body)
    refuse_foreign(body.tokens, card, "tokens")
    text = await engine.consult(
        lambda tokenizer: tokenizer.decode(body.tokens, skip_special_tokens=False), len(body.tokens)
    )
    return DetokenizeAnswer(prompt=text)
