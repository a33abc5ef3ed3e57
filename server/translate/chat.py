"""Between chat bodies and the engine's types: body to Request, events to chunks or a whole answer.

Pure functions and folds, without input or output. Chunks are written as JSON text directly: an
answer has one for each token, and only a few fields differ between them.
"""

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii

from openai.types.chat import ChatCompletionMessage, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion import ChoiceLogprobs

from engine import ChatOptions, Request, RequestError, TokenEvent
from server.schemas.chat import ChatAnswer, ChatAnswerChoice, ChatCompletionRequest, ChatMessage, TemplateBody
from server.translate.constraint import body_grammar
from server.translate.generation import (
    GatheredChoice,
    Tally,
    Ticket,
    cache_debug,
    encode_json,
    sse_event,
    usage_member,
)
from server.translate.logprobs import chat_logprob, chat_logprob_json, prompt_logprobs
from server.translate.room import Room
from server.translate.sampling import Encoder, Wanted, to_sampling


def to_messages(messages: Sequence[ChatMessage]) -> list[dict[str, object]]:
    """The messages as chat templates know them: text only, and `developer` under its older name."""
    return [_to_message(message) for message in messages]


def to_chat_options(
    body: TemplateBody, known: frozenset[str] | None, reasoning_effort: str | None = None
) -> ChatOptions:
    """How the messages become a prompt.

    Raises RequestError for a variable that is not among `known`, those that the template reads;
    None lets every variable pass.
    """
    variables: dict[str, object] = dict(body.chat_template_kwargs or {})
    unread = sorted(set(variables) - known) if known is not None else []
    if unread:
        raise RequestError(
            f"the model's chat template does not read {unread[0][:60]!r}; leave it out",
            "chat_template_kwargs",
        )
    if reasoning_effort is not None:
        if variables.get("reasoning_effort", reasoning_effort) != reasoning_effort:
            raise RequestError(
                "'reasoning_effort' and chat_template_kwargs.reasoning_effort differ; send one of them",
                "reasoning_effort",
            )
        if known is None or "reasoning_effort" in known:
            variables["reasoning_effort"] = reasoning_effort
        elif reasoning_effort != "none":
            raise RequestError(
                "'reasoning_effort' is not supported by this model: its chat template does not read it",
                "reasoning_effort",
            )
    return ChatOptions(
        add_generation_prompt=body.add_generation_prompt is not False,
        continue_final_message=bool(body.continue_final_message),
        add_special_tokens=bool(body.add_special_tokens),
        variables=variables,
    )


def to_room(body: ChatCompletionRequest, max_context: int) -> Room:
    """What the body asks of a context of `max_context` tokens."""
    return Room(
        max_context=max_context,
        prompt_field="messages",
        max_tokens=body.max_completion_tokens or body.max_tokens,
        limit_field="max_tokens" if body.max_completion_tokens is None else "max_completion_tokens",
    )


def to_request(
    body: ChatCompletionRequest,
    prompt_ids: Sequence[int],
    ticket: Ticket,
    *,
    max_context: int,
    encoder: Encoder,
) -> Request:
    """The engine's request; without a limit in the body, an answer may fill the context.

    Raises ContextLengthError where both do not fit, RequestError for what only the engine's own types refuse.
    """
    room = to_room(body, max_context)
    left = room.left_behind(len(prompt_ids))
    wanted = Wanted(
        max_tokens=left if room.max_tokens is None else room.max_tokens,
        seed=ticket.seed,
        logprobs=bool(body.logprobs),
        num_top_logprobs=body.top_logprobs or 0,
        prompt_logprobs=body.prompt_logprobs,
        grammar=body_grammar(body),
    )
    return Request(
        request_id=ticket.answer_id,
        prompt_ids=tuple(prompt_ids),
        sampling=to_sampling(body, wanted, encoder),
        num_choices=body.n or 1,
        arrival_s=ticket.created_s,
        caller=ticket.caller,
        priority=body.priority or 0,
        timeout_s=ticket.timeout_s(body.timeout),
        cache_salt=body.cache_salt or "",
        wants_prefix_report=bool(body.cache_debug),
    )


class ChatChunks:
    """Renders events as server-sent chunks: for each choice its role, its text, its end."""

    def __init__(self, body: ChatCompletionRequest, ticket: Ticket, prompt_ids: Sequence[int]) -> None:
        self._body = body
        self._has_usage = body.has_usage
        self._has_running_usage = body.has_running_usage
        self._has_logprobs = bool(body.logprobs)
        self._has_token_ids = bool(body.return_token_ids)
        self._prompt_ids = list(prompt_ids)
        self._head = ticket.head("chat.completion.chunk")
        self._opening = f'{encode_json(self._head)[:-1]},"choices":['
        self._usage = ',"usage":null' if self._has_usage else ""
        self._tally = Tally([prompt_ids])
        self._begun: set[int] = set()

    def add(self, _: int, event: TokenEvent) -> bytes:
        """The chunks of one event; none for text that is still held back."""
        self._tally.count(event.choice, event)
        chunks = b""
        if event.choice not in self._begun:
            self._begun.add(event.choice)
            begun = _choice(event.choice, {"role": "assistant", "content": "", "refusal": None}, None)
            chunks = self._chunk(encode_json(begun), self._of_prompt(event))
        elif event.prefix_report or (event.prompt_logprobs and self._body.prompt_logprobs is not None):
            chunks = self._chunk(encode_json(_choice(event.choice, {}, None)), self._of_prompt(event))
        if event.text or (self._has_token_ids and event.token_ids) or (self._has_logprobs and event.logprobs):
            chunks += self._chunk(self._text(event))
        if event.finish_reason is not None:
            chunks += self._chunk(encode_json(_choice(event.choice, {}, event.finish_reason.value)))
        return chunks

    def end(self) -> bytes:
        """The usage, where the request asked for it."""
        if not self._has_usage:
            return b""
        usage = self._tally.usage().model_dump(exclude_unset=True)
        return sse_event(encode_json({**self._head, "choices": [], "usage": usage}))

    def _of_prompt(self, event: TokenEvent) -> str:
        """What the answer's first chunks tell of the prompt, where asked for, as JSON text behind commas."""
        told = ""
        if self._has_token_ids and len(self._begun) == 1:
            told += f',"prompt_token_ids":{encode_json(self._prompt_ids)}'
        if self._body.prompt_logprobs is not None and event.prompt_logprobs:
            scores = prompt_logprobs(event.prompt_logprobs, self._body.prompt_logprobs)
            told += f',"prompt_logprobs":{encode_json(scores)}'
        if event.prefix_report is not None:
            told += f',"cache_debug":{encode_json(cache_debug(event.prefix_report).model_dump())}'
        return told

    def _text(self, event: TokenEvent) -> str:
        """The choice of a chunk of text, written directly: there is one for each token."""
        logprobs, token_ids = "null", ""
        if self._has_logprobs:
            told = ",".join(map(chat_logprob_json, event.logprobs))
            logprobs = f'{{"content":[{told}],"refusal":null}}'
        if self._has_token_ids:
            token_ids = f',"token_ids":[{",".join(map(str, event.token_ids))}]'
        return (
            f'{{"index":{event.choice},"delta":{{"content":{encode_basestring_ascii(event.text)}}},'
            f'"logprobs":{logprobs},"finish_reason":null{token_ids}}}'
        )

    def _chunk(self, choice: str, more: str = "") -> bytes:
        usage = usage_member(self._tally) if self._has_running_usage else self._usage
        return sse_event(f"{self._opening}{choice}]{usage}{more}}}")


class ChatFold:
    """Gathers events into one whole answer."""

    def __init__(self, body: ChatCompletionRequest, ticket: Ticket, prompt_ids: Sequence[int]) -> None:
        self._body = body
        self._has_logprobs = bool(body.logprobs)
        self._prompt_ids = list(prompt_ids) if body.return_token_ids else None
        self._ticket = ticket
        self._tally = Tally([prompt_ids])
        self._choices = [GatheredChoice() for _ in range(body.n or 1)]

    def add(self, _: int, event: TokenEvent) -> None:
        """Take the next event."""
        self._tally.count(event.choice, event)
        self._choices[event.choice].add(event)

    def to_json(self) -> str:
        """The answer's body; every choice must have ended."""
        answer = ChatAnswer(
            id=self._ticket.answer_id,
            object="chat.completion",
            created=int(self._ticket.created_s),
            model=self._ticket.model_id,
            system_fingerprint=self._ticket.fingerprint,
            choices=[self._choice(index, choice) for index, choice in enumerate(self._choices)],
            usage=self._tally.usage(),
        )
        if self._prompt_ids is not None:
            answer.prompt_token_ids = self._prompt_ids
        if self._body.prompt_logprobs is not None:
            scores = self._choices[0].prompt_logprobs
            answer.prompt_logprobs = [*prompt_logprobs(scores, self._body.prompt_logprobs)]
        report = self._choices[0].prefix_report
        if report is not None:
            answer.cache_debug = cache_debug(report)
        return answer.model_dump_json(exclude_unset=True)

    def _choice(self, index: int, gathered: GatheredChoice) -> ChatAnswerChoice:
        assert gathered.finish_reason is not None
        logprobs = None
        if self._has_logprobs:
            content = [
                ChatCompletionTokenLogprob.model_validate(chat_logprob(token)) for token in gathered.logprobs
            ]
            logprobs = ChoiceLogprobs(content=content, refusal=None)
        choice = ChatAnswerChoice(
            index=index,
            message=ChatCompletionMessage(role="assistant", content=gathered.text, refusal=None),
            logprobs=logprobs,
            finish_reason=gathered.finish_reason.value,
        )
        if self._prompt_ids is not None:
            choice.token_ids = gathered.token_ids
        return choice


def _to_message(message: ChatMessage) -> dict[str, object]:
    role = "system" if message.role == "developer" else message.role
    rendered: dict[str, object] = {"role": role, "content": message.text}
    extras = {"name": message.name, "tool_call_id": message.tool_call_id}
    rendered.update((key, value) for key, value in extras.items() if value is not None)
    return rendered


def _choice(index: int, delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
