"""POST /tokenize and POST /detokenize: what the tokenizer does, without generating."""

from fastapi import APIRouter

from engine import RequestError
from server.answering import refuse_unknown, require_card
from server.dependencies import CallerDep, EngineDep, SettingsDep
from server.prompting import render_for_tokenize
from server.schemas.common import answers_with
from server.schemas.tokens import DetokenizeAnswer, DetokenizeRequest, TokenizeAnswer, TokenizeRequest
from server.translate.logprobs import spelled

router = APIRouter(tags=["tokens"])


@router.post("/tokenize", response_model_exclude_unset=True, responses=answers_with())
async def tokenize(
    body: TokenizeRequest, engine: EngineDep, settings: SettingsDep, _: CallerDep
) -> TokenizeAnswer:
    """Encode a text, or a conversation as its chat prompt."""
    card = require_card(engine, settings, engine.model_id if body.model is None else body.model)
    refuse_unknown(settings, body)
    token_ids = await render_for_tokenize(engine, settings, body)
    answer = TokenizeAnswer(count=len(token_ids), max_model_len=card.max_context, tokens=list(token_ids))
    if body.return_token_strs:
        token_bytes = engine.tokenizer.token_bytes
        answer.token_strs = [spelled(token_bytes(token_id)) for token_id in token_ids]
    return answer


@router.post("/detokenize", responses=answers_with())
async def detokenize(
    body: DetokenizeRequest, engine: EngineDep, settings: SettingsDep, _: CallerDep
) -> DetokenizeAnswer:
    """Decode token ids, special tokens included."""
    card = require_card(engine, settings, engine.model_id if body.model is None else body.model)
    refuse_unknown(settings, body)
    highest = max(body.tokens, default=0)
    if highest >= card.vocab_size:
        raise RequestError(
            f"token id {highest} is not in the vocabulary; ids go from 0 to {card.vocab_size - 1}", "tokens"
        )
    return DetokenizeAnswer(prompt=engine.decode(body.tokens, skip_special_tokens=False))
