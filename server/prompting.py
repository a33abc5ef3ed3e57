"""From a body to what the engine is to continue: conversations rendered, texts encoded, gaps opened.

What needs the engine's tokenizer, and is done the same way by several routes. It generates nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

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
from server.translate.call_plan import plan_calls
from server.translate.dialect import Dialect
from server.translate.messages import in_front, preamble, to_chat_options, to_messages, to_template_tools
from server.translate.prompt import Prompt, echoed, infilled, truncated
from server.translate.room import Room
from server.translate.safety import SAFE_PROMPT, with_safe_prompt


async def render_conversation(
    engine: Engine, settings: Settings, body: ChatCompletionRequest, max_context: int | None = None
) -> RenderedChat:
    """The prompt of a chat body, with the functions, the safety prompt and the truncation it asks for.

    With `max_context`, what is certain to be longer is refused before it is encoded.
    """
    dialect, plan = dialect_of(engine, settings), plan_calls(body)
    dialect.require_calls(plan)
    tools = to_template_tools(plan.declared) if plan is not None and dialect.reads_tools else ()
    known = known_variables(engine, settings)
    options = to_chat_options(body, known, body.reasoning_effort, tools)
    if max_context is not None and body.truncate_prompt_tokens is None:
        options = replace(options, max_context=max_context)
    style = dialect.turn_style(keeps_reasoning=bool(body.include_past_reasoning))
    fronts: list[_Front] = []
    if plan is not None and not dialect.reads_tools:
        text = preamble(plan.declared, style.tool_format, must_call=plan.must_call)
        fronts.append(_Front(text, lambda messages, role: in_front(messages, text, role)))
    if body.safe_prompt:
        fronts.append(_Front(SAFE_PROMPT, with_safe_prompt))
    rendered = await _render(engine, to_messages(body.messages, style), options, fronts)
    kept = truncated(rendered.token_ids, body.truncate_prompt_tokens)
    if len(kept) == len(rendered.token_ids):
        return rendered
    text = await engine.consult(partial(_spelled_out, kept), len(kept))
    return RenderedChat(text=text, token_ids=kept)


def _spelled_out(token_ids: Sequence[int], tokenizer: Tokenizer) -> str:
    return tokenizer.decode(token_ids, skip_special_tokens=False)


def dialect_of(engine: Engine, settings: Settings) -> Dialect:
    """How the served model writes calls and reasoning."""
    return Dialect.of(engine.tokenizer, settings.tool_format, settings.reasoning_format)


class _Front(NamedTuple):
    """Text of ours, and what puts it in front of a conversation in the role given."""

    text: str
    put: Callable[[Sequence[Mapping[str, object]], str], list[dict[str, object]]]


async def _render(
    engine: Engine, messages: list[dict[str, object]], options: ChatOptions, fronts: Sequence[_Front]
) -> RenderedChat:
    """With what is to stand in front in a system message, or in a user's where the template shows no system."""
    if not fronts:
        return await engine.render_chat(messages, options)
    as_system, as_user = messages, messages
    for front in fronts:
        as_system, as_user = front.put(as_system, "system"), front.put(as_user, "user")
    try:
        rendered = await engine.render_chat(as_system, options)
    except ContextLengthError:
        raise
    except RequestError:
        pass
    else:
        if all(front.text in rendered.text for front in fronts):
            return rendered
    return await engine.render_chat(as_user, options)


async def render_for_tokenize(engine: Engine, settings: Settings, body: TokenizeRequest) -> tuple[int, ...]:
    """Token ids of the text or the conversation in a tokenize body."""
    if body.messages is None:
        return await engine.encode(body.prompt or "", add_special_tokens=body.add_special_tokens is not False)
    options = to_chat_options(body, known_variables(engine, settings))
    style = dialect_of(engine, settings).turn_style(keeps_reasoning=False)
    return (await engine.render_chat(to_messages(body.messages, style), options)).token_ids


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
