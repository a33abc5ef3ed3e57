"""`OpenRequest`: one request under way, from its opening until every choice, or the whole, has ended.

It turns the tokens of its choices into events for its stream. It does not know other requests, nor
how messages travel.
"""

import asyncio
from collections.abc import Callable, Sequence

from engine.errors import EngineError
from engine.messages import Finish, ToEngine
from engine.prefix_report import PrefixReport
from engine.request import FinishReason, Request
from engine.request_record import RequestRecord
from engine.stream import TokenEvent, TokenStream
from engine.text.detokenizer import ChoiceText, Delta
from engine.text.token_logprob import TokenLogprob
from engine.token_scores import TokenScores

NO_DELTA = Delta(text="", token_ids=(), logprobs=(), is_stopped=False)

Post = Callable[[ToEngine], None]


class OpenRequest:
    """One request under way: feeds its stream, until every choice has ended or the whole has."""

    def __init__(
        self,
        stream: TokenStream,
        texts: Sequence[ChoiceText],
        *,
        first_sequence_id: int,
        post: Post,
        opened_s: float,
    ) -> None:
        """`texts` has one entry per choice; `post` sends to the engine process that serves it."""
        self.stream = stream
        self.first_sequence_id = first_sequence_id
        self.post = post
        self.opened_s = opened_s
        self.waited_s: float | None = None
        self.first_token_s: float | None = None
        self.last_token_s: dict[int, float] = {}
        self.timer: asyncio.Task[None] | None = None
        self.reasons: dict[int, FinishReason] = {}
        self.num_cached_tokens = 0
        self.prefix_report: PrefixReport | None = None
        self._texts = tuple(texts)
        self._prompt_logprobs: list[TokenLogprob | None] = []
        if stream.request.sampling.prompt_logprobs is not None:
            self._prompt_logprobs.append(None)  # of the first token, which nothing predicts
        self._answer = asyncio.get_running_loop().create_future()

    @property
    def request(self) -> Request:
        """What the caller asked."""
        return self.stream.request

    @property
    def is_finished(self) -> bool:
        """Whether every choice has its finish reason."""
        return len(self.reasons) == len(self._texts)

    @property
    def num_output_tokens(self) -> int:
        """Tokens of all choices so far."""
        return sum(text.num_tokens for text in self._texts)

    def to_record(self, reason: str, ended_s: float) -> RequestRecord:
        """How it went, now that it has ended."""
        return RequestRecord(
            request=self.request,
            reason=reason,
            num_cached_tokens=self.num_cached_tokens,
            num_output_tokens=self.num_output_tokens,
            opened_s=self.opened_s,
            ended_s=ended_s,
            waited_s=self.waited_s,
            first_token_s=self.first_token_s,
        )

    async def wait_accepted(self) -> None:
        """Return when the engine process has queued the request; raise what came instead."""
        error = await self._answer
        if error is not None:
            raise error

    def answer(self, error: EngineError | None) -> None:
        """The request is queued, or `error` says why it is not; later answers change nothing."""
        if not self._answer.done():
            self._answer.set_result(error)

    def feed_prompt(self, scores: TokenScores) -> None:
        """Take the scores of the prompt's next tokens; they come with the first event of choice 0."""
        start = len(self._prompt_logprobs)
        token_ids = self.request.prompt_ids[start : start + len(scores)]
        self._prompt_logprobs += self._texts[0].name_tokens(token_ids, scores)

    def feed_cached(self, choice: int, num_cached: int) -> None:
        """A choice began behind a cached prefix; the first one's counts for the prompt."""
        if choice == 0:
            self.num_cached_tokens = num_cached

    def feed(
        self,
        choice: int,
        token_ids: tuple[int, ...],
        logprobs: TokenScores | None,
        finish_reason: FinishReason | None,
    ) -> None:
        """Take the next tokens of a choice that has not ended, and its end if this is it.

        The stream's reader is not told yet: there may be news of other choices too.

        A stop string that completes in these tokens comes before `finish_reason`, and if the
        engine process does not know yet that the choice has ended, it is told.
        """
        text = self._texts[choice]
        delta = text.feed(token_ids, logprobs) if token_ids else NO_DELTA
        if delta.is_stopped and finish_reason is None:
            self.post(Finish(request_id=self.request.request_id, choice=choice))
        if finish_reason is not None and not delta.is_stopped:
            delta = _joined(delta, text.flush())
        if delta.is_stopped:
            finish_reason = FinishReason.STOP
        if finish_reason is not None:
            self.reasons[choice] = finish_reason
        elif not (delta.text or delta.token_ids):
            return
        event = TokenEvent(
            choice=choice,
            text=delta.text,
            token_ids=delta.token_ids,
            logprobs=delta.logprobs,
            num_output_tokens=text.num_tokens,
            num_cached_tokens=self.num_cached_tokens,
            finish_reason=finish_reason,
            prompt_logprobs=() if choice else tuple(self._prompt_logprobs),
            prefix_report=None if choice else self.prefix_report,
            text_offsets=delta.text_offsets,
        )
        if not choice:
            self._prompt_logprobs = []
            self.prefix_report = None
        self.stream.put(event)


def _joined(first: Delta, second: Delta) -> Delta:
    return Delta(
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
        is_stopped=first.is_stopped or second.is_stopped,
        text_offsets=first.text_offsets + second.text_offsets,
    )
