"""Between chat bodies and the engine's types: body to Request, events to chunks or a whole answer.

Pure functions and folds, without input or output. Chunks are written as JSON text directly: an
answer has one for each token, and only a few fields differ between them.
"""

from collections.abc import Sequence

from openai.types.chat import ChatCompletionMessage, ChatCompletionTokenLogprob
from openai.types.chat.chat_completion import ChoiceLogprobs

from engine import Request, TokenEvent, TokenLogprob
from server.schemas.chat import ChatAnswer, ChatAnswerChoice, ChatCompletionRequest, ChatMessage
from server.translate.generation import (
    GatheredChoice,
    Tally,
    Ticket,
    bounded_logprob,
    encode_json,
    sse_event,
    to_sampling,
)


def to_messages(body: ChatCompletionRequest) -> list[dict[str, object]]:
    """The messages as chat templates know them: text only, and `developer` under its older name."""
    return [_to_message(message) for message in body.messages]


def to_request(
    body: ChatCompletionRequest, prompt_ids: Sequence[int], ticket: Ticket, *, max_context: int
) -> Request:
    """The engine's request; without a limit in the body, an answer may fill the context.

    Raises RequestError for what only the engine's own types refuse.
    """
    left = max(1, max_context - len(prompt_ids))
    return Request(
        request_id=ticket.answer_id,
        prompt_ids=tuple(prompt_ids),
        sampling=to_sampling(
            body,
            max_tokens=body.max_completion_tokens or body.max_tokens or left,
            has_logprobs=bool(body.logprobs),
            seed=ticket.seed,
        ),
        num_choices=body.n or 1,
        arrival_s=ticket.created_s,
    )


class ChatChunks:
    """Renders events as server-sent chunks: for each choice its role, its text, its end."""

    def __init__(self, body: ChatCompletionRequest, ticket: Ticket, prompt_ids: Sequence[int]) -> None:
        self._has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._has_logprobs = bool(body.logprobs)
        self._has_token_ids = bool(body.return_token_ids)
        self._prompt_ids = list(prompt_ids)
        self._head = ticket.head("chat.completion.chunk")
        self._opening = f'{encode_json(self._head)[:-1]},"choices":['
        self._closing = '],"usage":null}' if self._has_usage else "]}"
        self._tally = Tally([prompt_ids])
        self._begun: set[int] = set()

    def add(self, _: int, event: TokenEvent) -> bytes:
        """The chunks of one event; none for text that is still held back."""
        self._tally.count(event.choice, event)
        chunks = b""
        if event.choice not in self._begun:
            chunks = self._begin(event.choice)
        if event.text or (self._has_token_ids and event.token_ids) or (self._has_logprobs and event.logprobs):
            chunks += self._chunk(self._text(event))
        if event.finish_reason is not None:
            chunks += self._chunk(_choice(event.choice, {}, event.finish_reason.value))
        return chunks

    def end(self) -> bytes:
        """The usage, where the request asked for it."""
        if not self._has_usage:
            return b""
        usage = self._tally.usage().model_dump(exclude_unset=True)
        return sse_event(encode_json({**self._head, "choices": [], "usage": usage}))

    def _begin(self, choice: int) -> bytes:
        is_first = not self._begun
        self._begun.add(choice)
        begun = _choice(choice, {"role": "assistant", "content": "", "refusal": None}, None)
        if not (is_first and self._has_token_ids):
            return self._chunk(begun)
        usage = {"usage": None} if self._has_usage else {}
        return sse_event(
            encode_json({**self._head, "choices": [begun], **usage, "prompt_token_ids": self._prompt_ids})
        )

    def _text(self, event: TokenEvent) -> dict[str, object]:
        choice = _choice(event.choice, {"content": event.text}, None)
        if self._has_logprobs:
            choice["logprobs"] = {"content": [_logprob(token) for token in event.logprobs], "refusal": None}
        if self._has_token_ids:
            choice["token_ids"] = list(event.token_ids)
        return choice

    def _chunk(self, choice: dict[str, object]) -> bytes:
        return sse_event(f"{self._opening}{encode_json(choice)}{self._closing}")


class ChatFold:
    """Gathers events into one whole answer."""

    def __init__(self, body: ChatCompletionRequest, ticket: Ticket, prompt_ids: Sequence[int]) -> None:
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
        return answer.model_dump_json(exclude_unset=True)

    def _choice(self, index: int, gathered: GatheredChoice) -> ChatAnswerChoice:
        assert gathered.finish_reason is not None
        logprobs = None
        if self._has_logprobs:
            content = [
                ChatCompletionTokenLogprob.model_validate(_logprob(token)) for token in gathered.logprobs
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


def _logprob(token: TokenLogprob) -> dict[str, object]:
    return {
        "token": token.text,
        "logprob": bounded_logprob(token.logprob),
        "bytes": list(token.token_bytes),
        "top_logprobs": [],
    }
