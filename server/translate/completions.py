"""Between completion bodies and the engine's types: body to Requests, events to chunks or an answer.

A body with P prompts and n choices is P requests; choice c of prompt p is shown as index p·n + c.
Pure functions and folds, without input or output.
"""

from collections.abc import Sequence
from dataclasses import replace

from engine import PrefixReport, Request, SamplingParams, TokenEvent, TokenLogprob
from server.schemas.answers import CompletionAnswer, CompletionAnswerChoice
from server.schemas.completions import CompletionRequest
from server.translate.constraint import body_grammar
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
from server.translate.logprobs import completion_logprobs, prompt_logprobs
from server.translate.prompt import Prompt
from server.translate.sampling import Encoder, Wanted, to_sampling

DEFAULT_MAX_TOKENS = 16  # what OpenAI documents for this endpoint


def to_requests(
    body: CompletionRequest, prompts: Sequence[Prompt], ticket: Ticket, encoder: Encoder
) -> list[Request]:
    """The engine's requests, one for each prompt; a seed in the body serves for each of them.

    Where the body has no limit, an answer also ends with the context.
    Raises RequestError for what only the engine's own types refuse.
    """
    wanted = Wanted(
        max_tokens=DEFAULT_MAX_TOKENS if body.max_tokens is None else body.max_tokens,
        seed=ticket.seed,
        logprobs=body.logprobs is not None or body.num_generated > body.num_shown,
        num_top_logprobs=body.logprobs or 0,
        prompt_logprobs=_scores_wanted(body),
        grammar=body_grammar(body),
    )
    sampling = to_sampling(body, wanted, encoder)

    def sampling_of(index: int, prompt: Prompt) -> SamplingParams:
        seed = ticket.prompt_seed(index) if body.seed is None else sampling.seed
        return replace(sampling, seed=seed, max_tokens=min(sampling.max_tokens, prompt.num_left))

    return [
        Request(
            request_id=f"{ticket.answer_id}-{index}",
            prompt_ids=prompt.token_ids,
            sampling=sampling_of(index, prompt),
            num_choices=body.num_generated,
            arrival_s=ticket.created_s,
            caller=ticket.caller,
            priority=body.priority or 0,
            timeout_s=ticket.timeout_s(body.timeout),
            cache_salt=body.cache_salt or "",
            wants_prefix_report=bool(body.cache_debug),
        )
        for index, prompt in enumerate(prompts)
    ]


class ShownChoices:
    """How a body wants the parts of a choice shown: what is repeated of the prompt, and what is told besides."""

    def __init__(self, body: CompletionRequest) -> None:
        self._body = body
        self._has_logprobs = body.logprobs is not None
        self._num_top = body.logprobs or 0

    def text(self, prompt: Prompt, text: str, *, is_first: bool) -> str:
        """The text of a part, behind the prompt's in the choice's first."""
        return prompt.text + text if self._body.echo and is_first else text

    def logprobs(
        self,
        prompt: Prompt,
        of_prompt: Sequence[TokenLogprob | None],
        tokens: Sequence[TokenLogprob],
        offsets: Sequence[int],
    ) -> dict[str, object] | None:
        """The log-probabilities of a part; `of_prompt` those of the prompt before it, in the first part only."""
        if not self._has_logprobs:
            return None
        if not self._body.echo:
            return completion_logprobs(tokens, offsets, num_top=self._num_top)
        places = [len(prompt.text) + offset for offset in offsets]
        if of_prompt:
            places = [*prompt.text_offsets, *places]
        both = (*of_prompt, *tokens)
        return completion_logprobs(both, places, opening=prompt.opening, num_top=self._num_top)

    def extras(
        self,
        prompt: Prompt,
        of_prompt: Sequence[TokenLogprob | None],
        token_ids: Sequence[int],
        *,
        is_first: bool,
        report: PrefixReport | None,
    ) -> dict[str, object]:
        """The fields beyond OpenAI's, where the body asked for them."""
        told: dict[str, object] = {}
        if self._body.return_token_ids:
            told["token_ids"] = list(token_ids)
            if is_first:
                told["prompt_token_ids"] = list(prompt.token_ids)
        if self._body.prompt_logprobs is not None and is_first:
            told["prompt_logprobs"] = prompt_logprobs(of_prompt, self._body.prompt_logprobs)
        if report is not None:
            told["cache_debug"] = cache_debug(report).model_dump()
        return told


class CompletionChunks:
    """Renders events as server-sent chunks.

    Scores of a prompt come with its first choice's first event; until then the others' wait.
    """

    def __init__(self, body: CompletionRequest, ticket: Ticket, prompts: Sequence[Prompt]) -> None:
        self._body = body
        self._num_shown = body.num_shown
        self._shown = ShownChoices(body)
        self._prompts = prompts
        self._head = ticket.head("text_completion")
        self._opening = f'{encode_json(self._head)[:-1]},"choices":['
        self._usage = ',"usage":null' if body.has_usage else ""
        self._tally = Tally([prompt.token_ids for prompt in prompts])
        self._begun: set[int] = set()
        self._scores: dict[int, tuple[TokenLogprob | None, ...]] = {}
        self._waiting: dict[int, list[TokenEvent]] = {}
        is_scored = body.logprobs is not None or body.prompt_logprobs is not None
        self._are_bare = not (
            body.echo or is_scored or body.return_token_ids or body.cache_debug or body.has_running_usage
        )
        self._mould = TextMould(
            f'{self._opening}{{"index":',
            ',"text":',
            f',"logprobs":null,"finish_reason":null}}]{self._usage}}}',
        )

    def add(self, prompt_index: int, event: TokenEvent) -> bytes:
        """The chunks of one event; none for text that is still held back."""
        if self._are_bare and event.finish_reason is None:
            index = prompt_index * self._num_shown + event.choice
            self._tally.count(index, event)
            return self._mould.event(index, event.text) if event.text else b""
        if not self._body.scores_prompt or prompt_index in self._scores:
            return self._chunk(prompt_index, event)
        if not event.prompt_logprobs and event.choice:
            self._waiting.setdefault(prompt_index, []).append(event)
            return b""
        self._scores[prompt_index] = event.prompt_logprobs
        waited = self._waiting.pop(prompt_index, [])
        return b"".join(self._chunk(prompt_index, one) for one in (event, *waited))

    def end(self) -> bytes:
        """The usage, where the request asked for it."""
        if not self._body.has_usage:
            return b""
        usage = self._tally.usage().model_dump(exclude_unset=True)
        return sse_event(encode_json({**self._head, "choices": [], "usage": usage}))

    def _chunk(self, prompt_index: int, event: TokenEvent) -> bytes:
        index = prompt_index * self._num_shown + event.choice
        self._tally.count(index, event)
        is_first = index not in self._begun
        has_ids = self._body.return_token_ids and bool(event.token_ids)
        has_logprobs = self._body.logprobs is not None and bool(event.logprobs)
        is_told = event.text or has_ids or has_logprobs or event.finish_reason or event.prefix_report
        if not (is_told or (is_first and self._body.scores_prompt)):
            return b""
        chunk = encode_json(self._choice(prompt_index, index, event))
        usage = usage_member(self._tally) if self._body.has_running_usage else self._usage
        return sse_event(f"{self._opening}{chunk}]{usage}}}")

    def _choice(self, prompt_index: int, index: int, event: TokenEvent) -> dict[str, object]:
        is_first = index not in self._begun
        self._begun.add(index)
        prompt = self._prompts[prompt_index]
        of_prompt = self._scores.get(prompt_index, ()) if is_first else ()
        return {
            "index": index,
            "text": self._shown.text(prompt, event.text, is_first=is_first),
            "logprobs": self._shown.logprobs(prompt, of_prompt, event.logprobs, event.text_offsets),
            "finish_reason": None if event.finish_reason is None else event.finish_reason.value,
            **self._shown.extras(
                prompt, of_prompt, event.token_ids, is_first=is_first, report=event.prefix_report
            ),
        }


class CompletionFold:
    """Gathers events into one whole answer, and keeps the best of what was generated."""

    def __init__(self, body: CompletionRequest, ticket: Ticket, prompts: Sequence[Prompt]) -> None:
        self._body = body
        self._shown = ShownChoices(body)
        self._ticket = ticket
        self._prompts = prompts
        self._tally = Tally([prompt.token_ids for prompt in prompts])
        self._gathered = [[GatheredChoice() for _ in range(body.num_generated)] for _ in prompts]

    def add(self, prompt_index: int, event: TokenEvent) -> None:
        """Take the next event."""
        self._tally.count(prompt_index * self._body.num_generated + event.choice, event)
        self._gathered[prompt_index][event.choice].add(event)

    def to_json(self) -> str:
        """The answer's body; every choice must have ended."""
        choices = [
            self._choice(
                prompt_index,
                replace(
                    choice,
                    prompt_logprobs=gathered[0].prompt_logprobs,
                    prefix_report=gathered[0].prefix_report,
                ),
            )
            for prompt_index, gathered in enumerate(self._gathered)
            for choice in self._best(gathered)
        ]
        for index, choice in enumerate(choices):
            choice.index = index
        answer = CompletionAnswer(
            id=self._ticket.answer_id,
            object="text_completion",
            created=int(self._ticket.created_s),
            model=self._ticket.model_id,
            system_fingerprint=self._ticket.fingerprint,
            choices=choices,
            usage=self._tally.usage(),
        )
        return answer.model_dump_json(exclude_unset=True)

    def _best(self, gathered: Sequence[GatheredChoice]) -> Sequence[GatheredChoice]:
        """As many as are shown, of highest mean log-probability; all of them in their own order."""
        if len(gathered) == self._body.num_shown:
            return gathered
        return sorted(gathered, key=GatheredChoice.mean_logprob, reverse=True)[: self._body.num_shown]

    def _choice(self, prompt_index: int, gathered: GatheredChoice) -> CompletionAnswerChoice:
        assert gathered.finish_reason is not None
        prompt = self._prompts[prompt_index]
        told = self._shown.logprobs(
            prompt, gathered.prompt_logprobs, gathered.logprobs, gathered.text_offsets
        )
        extras = self._shown.extras(
            prompt,
            gathered.prompt_logprobs,
            gathered.token_ids,
            is_first=True,
            report=gathered.prefix_report,
        )
        return CompletionAnswerChoice.model_validate(
            {
                "index": 0,
                "text": self._shown.text(prompt, gathered.text, is_first=True),
                "logprobs": told,
                "finish_reason": gathered.finish_reason.value,
                **extras,
            }
        )


def _scores_wanted(body: CompletionRequest) -> int | None:
    """Alternatives to each token of the prompt, as many as anything in the answer shows; None: no scores."""
    if not body.scores_prompt:
        return None
    return max(body.prompt_logprobs or 0, (body.logprobs or 0) if body.echo else 0)
