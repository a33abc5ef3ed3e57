"""Between chat bodies and the engine's types: body to Request, events to chunks or a whole answer.

Pure functions and folds, without input or output. Chunks are written as JSON text directly: an
answer has one for each token, and only a few fields differ between them.
"""

from collections.abc import Sequence
from json.encoder import encode_basestring_ascii

from engine import FinishReason, Request, TokenEvent
from server.schemas.answers import (
    ChatAnswer,
    ChatAnswerChoice,
    ChatAnswerMessage,
    ChatCompletionTokenLogprob,
    ChatFinishReason,
    ChoiceLogprobs,
)
from server.schemas.chat import ChatCompletionRequest
from server.tools.pieces import CallBegun, Piece, Said
from server.translate.answer_parts import (
    PLAIN_RULES,
    AnswerRules,
    ChoiceReader,
    delta_of,
    message_of,
)
from server.translate.generation import (
    GatheredChoice,
    Tally,
    TextMould,
    Ticket,
    cache_debug,
    encode_json,
    sse_event,
    usage_member,
)
from server.translate.logprobs import chat_logprob, chat_logprob_json, prompt_logprobs
from server.translate.room import Room
from server.translate.sampling import Encoder, Wanted, to_sampling


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
    """The engine's request, without a grammar; without a limit in the body, an answer may fill the context.

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
    """Renders events as server-sent chunks: for each choice its role, its text or its parts, its end."""

    def __init__(
        self,
        body: ChatCompletionRequest,
        ticket: Ticket,
        prompt_ids: Sequence[int],
        rules: AnswerRules = PLAIN_RULES,
    ) -> None:
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
        self._ticket = ticket
        self._rules = rules
        self._readers = {} if rules.are_plain else {i: ChoiceReader(rules) for i in range(body.n or 1)}
        self._silent = set(self._readers)
        is_scored = self._has_logprobs or body.prompt_logprobs is not None
        self._are_bare = not (
            self._readers or is_scored or self._has_token_ids or body.cache_debug or self._has_running_usage
        )
        self._mould = TextMould(
            f'{self._opening}{{"index":',
            ',"delta":{"content":',
            f'}},"logprobs":null,"finish_reason":null}}]{self._usage}}}',
        )

    def add(self, _: int, event: TokenEvent) -> bytes:
        """The chunks of one event; none for text that is still held back."""
        self._tally.count(event.choice, event)
        if self._are_bare and event.finish_reason is None and event.choice in self._begun:
            return self._mould.event(event.choice, event.text) if event.text else b""
        chunks = b""
        if event.choice not in self._begun:
            self._begun.add(event.choice)
            content = None if self._readers else ""
            begun = _choice(event.choice, {"role": "assistant", "content": content, "refusal": None}, None)
            chunks = self._chunk(encode_json(begun), self._of_prompt(event))
        elif event.prefix_report or (event.prompt_logprobs and self._body.prompt_logprobs is not None):
            chunks = self._chunk(encode_json(_choice(event.choice, {}, None)), self._of_prompt(event))
        reader = self._readers.get(event.choice)
        if reader is not None:
            chunks += self._parts(reader, event)
        elif event.text or self._has_extras(event):
            text = f'{{"content":{encode_basestring_ascii(event.text)}}}'
            chunks += self._chunk(self._told(text, event))
        if event.finish_reason is not None:
            reason = event.finish_reason
            told = reason.value if reader is None else reader.finish_reason(reason)
            chunks += self._chunk(encode_json(_choice(event.choice, {}, told)))
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

    def _has_extras(self, event: TokenEvent) -> bool:
        """Whether there is more to tell than text."""
        return bool((self._has_token_ids and event.token_ids) or (self._has_logprobs and event.logprobs))

    def _parts(self, reader: ChoiceReader, event: TokenEvent) -> bytes:
        """A chunk for each piece; what is told of the event's tokens goes with the first."""
        pieces = reader.feed(event)
        self._tally.count_reasoning(event.choice, reader.num_reasoning_tokens)
        deltas = [delta_of(piece, self._rules, self._ticket, event.choice) for piece in pieces]
        if any(isinstance(piece, Said | CallBegun) for piece in pieces):
            self._silent.discard(event.choice)
        if event.finish_reason is not None and event.choice in self._silent:
            deltas.append({"content": ""})
        if not deltas and self._has_extras(event):
            deltas.append({})
        chunks = [
            self._told(encode_json(delta), event)
            if not index
            else encode_json(_choice(event.choice, delta, None))
            for index, delta in enumerate(deltas)
        ]
        return b"".join(map(self._chunk, chunks))

    def _told(self, delta: str, event: TokenEvent) -> str:
        """A choice with what is told of its tokens, written directly: there is one for each token."""
        logprobs, token_ids = "null", ""
        if self._has_logprobs:
            told = ",".join(map(chat_logprob_json, event.logprobs))
            logprobs = f'{{"content":[{told}],"refusal":null}}'
        if self._has_token_ids:
            token_ids = f',"token_ids":[{",".join(map(str, event.token_ids))}]'
        return (
            f'{{"index":{event.choice},"delta":{delta},'
            f'"logprobs":{logprobs},"finish_reason":null{token_ids}}}'
        )

    def _chunk(self, choice: str, more: str = "") -> bytes:
        usage = usage_member(self._tally) if self._has_running_usage else self._usage
        return sse_event(f"{self._opening}{choice}]{usage}{more}}}")


class ChatFold:
    """Gathers events into one whole answer."""

    def __init__(
        self,
        body: ChatCompletionRequest,
        ticket: Ticket,
        prompt_ids: Sequence[int],
        rules: AnswerRules = PLAIN_RULES,
    ) -> None:
        self._body = body
        self._has_logprobs = bool(body.logprobs)
        self._prompt_ids = list(prompt_ids) if body.return_token_ids else None
        self._ticket = ticket
        self._tally = Tally([prompt_ids])
        self._choices = [GatheredChoice() for _ in range(body.n or 1)]
        self._rules = rules
        self._readers = [] if rules.are_plain else [ChoiceReader(rules) for _ in self._choices]
        self._pieces: list[list[Piece]] = [[] for _ in self._choices]

    def add(self, _: int, event: TokenEvent) -> None:
        """Take the next event."""
        self._tally.count(event.choice, event)
        self._choices[event.choice].add(event)
        if self._readers:
            reader = self._readers[event.choice]
            self._pieces[event.choice] += reader.feed(event)
            self._tally.count_reasoning(event.choice, reader.num_reasoning_tokens)

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
            message=self._message(index, gathered),
            logprobs=logprobs,
            finish_reason=self._finish_reason(index, gathered.finish_reason),
        )
        if self._prompt_ids is not None:
            choice.token_ids = gathered.token_ids
        return choice

    def _message(self, index: int, gathered: GatheredChoice) -> ChatAnswerMessage:
        if not self._readers:
            return ChatAnswerMessage(role="assistant", content=gathered.text, refusal=None)
        return message_of(self._pieces[index], self._rules, self._ticket, index)

    def _finish_reason(self, index: int, reason: FinishReason) -> ChatFinishReason:
        return self._readers[index].finish_reason(reason) if self._readers else reason.value


def _choice(index: int, delta: dict[str, object], finish_reason: str | None) -> dict[str, object]:
    return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}
