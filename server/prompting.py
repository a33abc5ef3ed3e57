"""From a body to what the engine is to continue: conversations rendered, texts encoded, gaps opened.

What needs the engine's tokenizer, and is done the same way by several routes. It generates nothing.
"""

from engine import ChatOptions, Engine, RenderedChat, RequestError
from server.schemas.chat import ChatCompletionRequest
from server.schemas.completions import CompletionRequest
from server.schemas.tokens import TokenizeRequest
from server.settings import Settings
from server.translate.chat import to_chat_options, to_messages
from server.translate.prompt import Prompt, echoed, infilled, truncated
from server.translate.safety import SAFE_PROMPT, with_safe_prompt


async def render_conversation(
    engine: Engine, settings: Settings, body: ChatCompletionRequest
) -> RenderedChat:
    """The prompt of a chat body, with the safety prompt and the truncation that it asks for."""
    options = to_chat_options(body, known_variables(engine, settings), body.reasoning_effort)
    messages = to_messages(body.messages)
    if body.safe_prompt:
        rendered = await _render_safe(engine, messages, options)
    else:
        rendered = await engine.render_chat(messages, options)
    kept = truncated(rendered.token_ids, body.truncate_prompt_tokens)
    if len(kept) == len(rendered.token_ids):
        return rendered
    return RenderedChat(text=engine.decode(kept, skip_special_tokens=False), token_ids=kept)


async def _render_safe(
    engine: Engine, messages: list[dict[str, object]], options: ChatOptions
) -> RenderedChat:
    """With the safety prompt as a system message, or in a user's where the template shows no system."""
    try:
        rendered = await engine.render_chat(with_safe_prompt(messages, "system"), options)
    except RequestError:
        pass
    else:
        if SAFE_PROMPT in rendered.text:
            return rendered
    return await engine.render_chat(with_safe_prompt(messages, "user"), options)


async def render_for_tokenize(engine: Engine, settings: Settings, body: TokenizeRequest) -> tuple[int, ...]:
    """Token ids of the text or the conversation in a tokenize body."""
    if body.messages is None:
        return await engine.encode(body.prompt or "", add_special_tokens=body.add_special_tokens is not False)
    options = to_chat_options(body, known_variables(engine, settings))
    return (await engine.render_chat(to_messages(body.messages), options)).token_ids


def known_variables(engine: Engine, settings: Settings) -> frozenset[str] | None:
    """What a chat template may be given; None where unknown names are ignored."""
    return None if settings.unknown_fields == "ignore" else engine.tokenizer.template_variables


async def read_prompts(engine: Engine, body: CompletionRequest) -> list[Prompt]:
    """The prompts of a completion body, ready to be continued."""
    return [await _read_prompt(engine, body, prompt) for prompt in body.prompts]


async def _read_prompt(engine: Engine, body: CompletionRequest, given: str | list[int]) -> Prompt:
    adds_special = body.add_special_tokens is not False and not body.suffix
    is_text = isinstance(given, str)
    whole = (
        await engine.encode(given, add_special_tokens=adds_special)
        if isinstance(given, str)
        else tuple(given)
    )
    if body.suffix:
        whole = infilled(whole, body.suffix, engine.tokenizer)
    kept = truncated(whole, body.truncate_prompt_tokens)
    if not body.echo:
        return Prompt(token_ids=kept)
    _refuse_foreign(kept, engine)
    text = given if is_text and len(kept) == len(whole) else None
    skips_special = body.skip_special_tokens is not False
    return echoed(kept, None if text is None else str(text), engine.tokenizer, skips_special=skips_special)


def _refuse_foreign(token_ids: tuple[int, ...], engine: Engine) -> None:
    """RequestError for an id that cannot be decoded because there is no such token."""
    card = engine.card
    highest = max(token_ids, default=0)
    if card is not None and highest >= card.vocab_size:
        raise RequestError(
            f"token id {highest} is not in the vocabulary; ids go from 0 to {card.vocab_size - 1}", "prompt"
        )
