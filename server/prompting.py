"""From a body to what the engine is to continue: conversations rendered, texts encoded, gaps opened.

What needs the engine's tokenizer, and is done the same way by several routes. It generates nothing.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from engine import (
    ChatOptions,
    ContextLengthError,
    Engine,
    ModelCard,
    RenderedChat,
    RequestError,
    Tokenizer,
)
from server.schemas.chat import ChatCompletionRequest
from server.schemas.completions import CompletionRequest
from server.schemas.tokens import TokenizeRequest
from server.settings import Settings
from server.translate.chat import to_chat_options, to_messages
from server.translate.prompt import Prompt, echoed, infilled, truncated
from server.translate.room import Room
from server.translate.safety import SAFE_PROMPT, with_safe_prompt


async def render_conversation(
    engine: Engine, settings: Settings, body: ChatCompletionRequest, max_context: int | None = None
) -> RenderedChat:
    """The prompt of a chat body, with the safety prompt and the truncation that it asks for.

    With `max_context`, what is certain to be longer is refused before it is encoded.
    """
    options = to_chat_options(body, known_variables(engine, settings), body.reasoning_effort)
    if max_context is not None and body.truncate_prompt_tokens is None:
        options = replace(options, max_context=max_context)
    messages = to_messages(body.messages)
    if body.safe_prompt:
        rendered = await _render_safe(engine, messages, options)
    else:
        rendered = await engine.render_chat(messages, options)
    kept = truncated(rendered.token_ids, body.truncate_prompt_tokens)
    if len(kept) == len(rendered.token_ids):
        return rendered
    text = await engine.consult(partial(_spelled_out, kept), len(kept))
    return RenderedChat(text=text, token_ids=kept)


def _spelled_out(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=False)


async def _render_safe(
    engine: Engine, messages: list[dict[str, object]], options: ChatOptions
) -> RenderedChat:
    """With the safety prompt as a system message, or in a user's where the template shows no system."""
    try:
        rendered = await engine.render_chat(with_safe_prompt(messages, "system"), options)
    except ContextLengthError:
        raise
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


async def read_prompts(engine: Engine, card: ModelCard, body: CompletionRequest) -> list[Prompt]:
    """The prompts of a completion body, ready to be continued.

    Raises RequestError for one that cannot be, or that does not fit.
    """
    size = sum(map(len, body.prompts)) + len(body.suffix or "")
    return await engine.consult(partial(_read_prompts, body, card), size)


def _read_prompts(body: CompletionRequest, card: ModelCard, tokenizer: Tokenizer) -> list[Prompt]:
    return [_read_prompt(body, given, card, tokenizer) for given in body.prompts]


def _read_prompt(
    body: CompletionRequest, given: str | list[int], card: ModelCard, tokenizer: Tokenizer
) -> Prompt:
    room = Room(max_context=card.max_context, prompt_field="prompt", max_tokens=body.max_tokens)
    if isinstance(given, str):
        if body.truncate_prompt_tokens is None:
            _refuse_long_text(given + (body.suffix or ""), room, tokenizer)
        adds_special = body.add_special_tokens is not False and not body.suffix
        whole = tuple(tokenizer.encode(given, add_special_tokens=adds_special))
        if not whole and adds_special and tokenizer.start_id is not None:
            whole = (tokenizer.start_id,)  # an empty text is the start of a document
    else:
        whole = tuple(given)
    if body.suffix:
        whole = infilled(whole, body.suffix, tokenizer)
    kept = truncated(whole, body.truncate_prompt_tokens)
    num_left = room.left_behind(len(kept))
    if not body.echo:
        return Prompt(token_ids=kept, num_left=num_left)
    refuse_foreign(kept, card, "prompt")
    text = given if isinstance(given, str) and len(kept) == len(whole) else None
    shown = echoed(kept, text, tokenizer, skips_special=body.skip_special_tokens is not False)
    return replace(shown, num_left=num_left)


def _refuse_long_text(text: str, room: Room, tokenizer: Tokenizer) -> None:
    """ContextLengthError for text that is certain not to fit, before it is encoded."""
    least = tokenizer.least_tokens(text)
    if least > room.max_prompt_tokens:
        raise ContextLengthError.of_prompt(least, room.max_context, room.prompt_field, is_least=True)


def refuse_foreign(token_ids: Sequence[int], card: ModelCard, param: str) -> None:
    """RequestError for an id that cannot be decoded because there is no such token."""
    highest = max(token_ids, default=0)
    if highest >= card.vocab_size:
        raise RequestError(
            f"token id {highest} is not in the vocabulary; ids go from 0 to {card.vocab_size - 1}", param
        )
