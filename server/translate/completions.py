"""Between completion bodies and the engine's types: body to Requests, events to chunks or an answer.

A body with P prompts and n choices is P requests; choice c of prompt p is shown as index p·n + c.
Pure functions and folds, without input or output.
"""

from collections.abc import Sequence

from openai.types.completion_choice import Logprobs

from engine import Request, TokenEvent, TokenLogprob
from server.schemas.completions import CompletionAnswer, CompletionAnswerChoice, CompletionRequest
from server.translate.generation import (
    GatheredChoice,
    Tally,
    Ticket,
    bounded_logprob,
    encode_json,
    sse_event,
    text_offsets,
    to_sampling,
)

DEFAULT_MAX_TOKENS = 16  # what OpenAI documents for this endpoint


def to_requests(body: CompletionRequest, prompts: Sequence[Sequence[int]], ticket: Ticket) -> list[Request]:
    """The engine's requests, one for each prompt.

    Raises RequestError for what only the engine's own types refuse.
    """
    sampling = to_sampling(
        body,
        max_tokens=body.max_tokens or DEFAULT_MAX_TOKENS,
        has_logprobs=body.logprobs is not None,
        seed=ticket.seed,
    )
    return [
        Request(
            request_id=f"{ticket.answer_id}-{index}",
            prompt_ids=tuple(prompt_ids),
            sampling=sampling,
            num_choices=body.n or 1,
            arrival_s=ticket.created_s,
        )
        for index, prompt_ids in enumerate(prompts)
    ]


class CompletionChunks:
    """Renders events as server-sent chunks."""

    def __init__(self, body: CompletionRequest, ticket: Ticket, prompts: Sequence[Sequence[int]]) -> None:
        self._num_choices = body.n or 1
        self._has_usage = body.stream_options is not None and bool(body.stream_options.include_usage)
        self._has_logprobs = body.logprobs is not None
        self._has_token_ids = bool(body.return_token_ids)
        self._prompts = prompts
        self._head = ticket.head("text_completion")
        self._opening = f'{encode_json(self._head)[:-1]},"choices":['
        self._closing = '],"usage":null}' if self._has_usage else "]}"
        self._tally = Tally(prompts)
        self._num_chars: dict[int, int] = {}

    def add(self, prompt_index: int, event: TokenEvent) -> bytes:
        """The chunk of one event; none for text that is still held back."""
        index = prompt_index * self._num_choices + event.choice
        self._tally.count(index, event)
        has_ids = self._has_token_ids and bool(event.token_ids)
        has_logprobs = self._has_logprobs and bool(event.logprobs)
        if not (event.text or has_ids or has_logprobs or event.finish_reason):
            return b""
        chunk = encode_json(self._choice(prompt_index, index, event))
        return sse_event(f"{self._opening}{chunk}{self._closing}")

    def end(self) -> bytes:
        """The usage, where the request asked for it."""
        if not self._has_usage:
            return b""
        usage = self._tally.usage().model_dump(exclude_unset=True)
        return sse_event(encode_json({**self._head, "choices": [], "usage": usage}))

    def _choice(self, prompt_index: int, index: int, event: TokenEvent) -> dict[str, object]:
        start = self._num_chars.get(index)
        self._num_chars[index] = (start or 0) + len(event.text)
        logprobs = None
        if self._has_logprobs:
            logprobs = _logprobs(event.logprobs, text_offsets(event, start or 0))
        choice: dict[str, object] = {
            "index": index,
            "text": event.text,
            "logprobs": logprobs,
            "finish_reason": None if event.finish_reason is None else event.finish_reason.value,
        }
        if self._has_token_ids:
            choice["token_ids"] = list(event.token_ids)
            if start is None:
                choice["prompt_token_ids"] = list(self._prompts[prompt_index])
        return choice


class CompletionFold:
    """Gathers events into one whole answer."""

    def __init__(self, body: CompletionRequest, ticket: Ticket, prompts: Sequence[Sequence[int]]) -> None:
        self._num_choices = body.n or 1
        self._has_logprobs = body.logprobs is not None
        self._has_token_ids = bool(body.return_token_ids)
        self._ticket = ticket
        self._prompts = prompts
        self._tally = Tally(prompts)
        self._choices = [GatheredChoice() for _ in range(len(prompts) * self._num_choices)]

    def add(self, prompt_index: int, event: TokenEvent) -> None:
        """Take the next event."""
        index = prompt_index * self._num_choices + event.choice
        self._tally.count(index, event)
        self._choices[index].add(event)

    def to_json(self) -> str:
        """The answer's body; every choice must have ended."""
        answer = CompletionAnswer(
            id=self._ticket.answer_id,
            object="text_completion",
            created=int(self._ticket.created_s),
            model=self._ticket.model_id,
            system_fingerprint=self._ticket.fingerprint,
            choices=[self._choice(index, choice) for index, choice in enumerate(self._choices)],
            usage=self._tally.usage(),
        )
        return answer.model_dump_json(exclude_unset=True)

    def _choice(self, index: int, gathered: GatheredChoice) -> CompletionAnswerChoice:
        assert gathered.finish_reason is not None
        logprobs = None
        if self._has_logprobs:
            logprobs = Logprobs.model_validate(_logprobs(gathered.logprobs, gathered.text_offsets))
        choice = CompletionAnswerChoice(
            index=index,
            text=gathered.text,
            logprobs=logprobs,
            finish_reason=gathered.finish_reason.value,
        )
        if self._has_token_ids:
            choice.token_ids = gathered.token_ids
            choice.prompt_token_ids = list(self._prompts[index // self._num_choices])
        return choice


def _logprobs(tokens: Sequence[TokenLogprob], offsets: list[int]) -> dict[str, object]:
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [bounded_logprob(token.logprob) for token in tokens],
        "top_logprobs": None,
        "text_offset": offsets,
    }
