"""The requests under way: which sequence's news goes into which stream, and how each of them ends.

`OpenRequests` is fed by the supervisor's one reader, in the event loop's thread. It turns columns
of tokens into events and sees to it that every stream ends once, whatever comes first: the last
finish reason, a stop string, an abort, a failure, or the end of the engine process. It does not
know how messages travel, nor when a process is started.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Sequence

from engine.errors import EngineError, EngineUnavailableError
from engine.messages import (
    Abort,
    Accepted,
    CacheCleared,
    Drained,
    Finish,
    Refused,
    ToEngine,
    Updates,
)
from engine.open_orders import OpenOrders
from engine.prefix_report import PrefixReport
from engine.request import MAX_CHOICES, FinishReason, Request
from engine.stream import TokenEvent, TokenStream
from engine.text.detokenizer import ChoiceText, Delta
from engine.text.token_logprob import TokenLogprob
from engine.token_scores import TokenScores

logger = logging.getLogger(__name__)

SCORED = MAX_CHOICES  # the bit of a sequence id that says: this one's tokens have log-probabilities
SEQUENCE_ID_STRIDE = 2 * MAX_CHOICES
NEWEST_WEIGHT = 0.2  # of the last request in the running mean of durations
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
        self.first_token_s: float | None = None
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
        )
        if not choice:
            self._prompt_logprobs = []
            self.prefix_report = None
        self.stream.put(event)


class OpenRequests:
    """All requests under way, by request id and by sequence id.

    A request's sequence ids are consecutive, above those of all requests before it, and tell by
    themselves which choice they are and whether log-probabilities come with their tokens. So the
    flat columns of `Updates` can be cut although some rows tell of requests that are forgotten
    already. The third request, if it asked for log-probabilities, has

        sequence ids   2 * 256 + 128 + choice
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self.orders = OpenOrders()
        self._now = now
        self._requests: dict[str, OpenRequest] = {}
        self._by_sequence: dict[int, OpenRequest] = {}
        self._num_opened = 0
        self._mean_duration_s = 0.0
        self._idle = asyncio.Event()
        self._idle.set()

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._requests

    @property
    def num_sequences(self) -> int:
        """Sequences that have not ended, of all requests together."""
        return len(self._by_sequence)

    @property
    def mean_duration_s(self) -> float:
        """How long requests took lately, from opening to end; 0 before the first has ended."""
        return self._mean_duration_s

    def open(self, request: Request, texts: Sequence[ChoiceText], post: Post) -> OpenRequest:
        """Register `request`, whose id must not be under way; `post` reaches the process that serves it."""
        assert request.request_id not in self._requests
        first = self._num_opened * SEQUENCE_ID_STRIDE + (SCORED if request.sampling.logprobs else 0)
        self._num_opened += 1
        stream = TokenStream(request, on_abort=lambda: self._abort(request.request_id))
        opened = OpenRequest(stream, texts, first_sequence_id=first, post=post, opened_s=self._now())
        self._requests[request.request_id] = opened
        self._by_sequence.update(dict.fromkeys(_sequence_ids(opened), opened))
        self._idle.clear()
        return opened

    def hear(self, message: Updates | Accepted | Refused | CacheCleared | Drained) -> None:
        """Take news from the engine process; what tells of a request that has ended is dropped."""
        match message:
            case Updates():
                self._take_prompt_scores(message)
                self._take_prefixes(message)
                self._take_rows(message)
                self._take_failures(message)
            case Accepted(request_id=request_id):
                if request_id in self._requests:
                    self._requests[request_id].answer(None)
            case Refused(request_id=request_id, error=error):
                if request_id in self._requests:
                    self._fail(self._requests[request_id], error)
            case CacheCleared():
                self.orders.hear(message)
            case Drained():
                unavailable = "the engine is stopping and had finished all that it knew of"
                self.end_all(EngineUnavailableError(unavailable, state="stopping"))

    def end_all(self, error: EngineError) -> tuple[str, ...]:
        """End every stream and every order with a copy of `error`; the ids of the requests."""
        self.orders.end_all(error)
        request_ids = tuple(self._requests)
        for opened in tuple(self._requests.values()):
            self._fail(opened, error)
        return request_ids

    async def wait_idle(self) -> None:
        """Return when no request is under way."""
        await self._idle.wait()

    def _take_prompt_scores(self, updates: Updates) -> None:
        for sequence_id, scores in updates.prompt_scores:
            opened = self._by_sequence.get(sequence_id)
            if opened is not None:
                opened.feed_prompt(scores)

    def _take_prefixes(self, updates: Updates) -> None:
        for sequence_id, num_cached in updates.num_cached:
            opened = self._by_sequence.get(sequence_id)
            if opened is not None:
                opened.feed_cached(sequence_id - opened.first_sequence_id, num_cached)
        for sequence_id, report in updates.prefix_reports:
            opened = self._by_sequence.get(sequence_id)
            if opened is not None and sequence_id == opened.first_sequence_id:
                opened.prefix_report = report

    def _take_rows(self, updates: Updates) -> None:
        token_start = score_start = top_start = 0
        num_top = updates.num_top or (0,) * len(updates.sequence_ids)
        rows = zip(updates.sequence_ids, updates.num_tokens, updates.finish_reasons, num_top, strict=True)
        for sequence_id, num_tokens, finish_reason, num_alternatives in rows:
            token_ids = updates.token_ids[token_start : token_start + num_tokens]
            token_start += num_tokens
            logprobs = None
            if sequence_id & SCORED:
                score_stop, top_stop = score_start + num_tokens, top_start + num_tokens * num_alternatives
                logprobs = TokenScores(
                    logprobs=updates.logprobs[score_start:score_stop],
                    ranks=updates.ranks[score_start:score_stop],
                    top_ids=updates.top_ids[top_start:top_stop],
                    top_logprobs=updates.top_logprobs[top_start:top_stop],
                )
                score_start, top_start = score_stop, top_stop
            opened = self._by_sequence.get(sequence_id)
            if opened is not None:
                self._feed(opened, sequence_id, token_ids, logprobs, finish_reason)

    def _feed(
        self,
        opened: OpenRequest,
        sequence_id: int,
        token_ids: tuple[int, ...],
        logprobs: TokenScores | None,
        finish_reason: FinishReason | None,
    ) -> None:
        if opened.first_token_s is None and token_ids:
            opened.first_token_s = self._now()
        choice = sequence_id - opened.first_sequence_id
        try:
            opened.feed(choice, token_ids, logprobs, finish_reason)
        except Exception:  # as in the step loop: one request's fault ends that request alone
            request_id = opened.request.request_id
            logger.exception("output could not be told id=%s choice=%d", request_id, choice)
            opened.post(Abort(request_id=request_id))
            self._fail(
                opened, EngineError(f"the output of request {request_id} could not be turned into text")
            )
            return
        if choice not in opened.reasons:
            return
        del self._by_sequence[sequence_id]
        if opened.is_finished:
            opened.stream.end()
            self._forget(opened, ",".join(opened.reasons[choice] for choice in sorted(opened.reasons)))

    def _take_failures(self, updates: Updates) -> None:
        for sequence_id, error in updates.failures:
            opened = self._by_sequence.pop(sequence_id, None)
            if opened is None:
                continue
            if any(other in self._by_sequence for other in _sequence_ids(opened)):
                opened.post(Abort(request_id=opened.request.request_id))
            self._fail(opened, error)

    def _fail(self, opened: OpenRequest, error: EngineError) -> None:
        opened.answer(error.fresh())
        opened.stream.end(error.fresh())
        self._forget(opened, type(error).__name__)

    def _abort(self, request_id: str) -> None:
        opened = self._requests[request_id]
        opened.post(Abort(request_id=request_id))
        self._forget(opened, "abort")

    def _forget(self, opened: OpenRequest, reason: str) -> None:
        del self._requests[opened.request.request_id]
        for sequence_id in _sequence_ids(opened):
            self._by_sequence.pop(sequence_id, None)
        if not self._requests:
            self._idle.set()
        duration_s = self._now() - opened.opened_s
        if opened.first_token_s is not None:  # else it says nothing of how long one takes
            weight = NEWEST_WEIGHT if self._mean_duration_s else 1.0
            self._mean_duration_s += weight * (duration_s - self._mean_duration_s)
        _log_end(opened, reason, duration_s)


def _sequence_ids(opened: OpenRequest) -> range:
    return range(opened.first_sequence_id, opened.first_sequence_id + opened.request.num_choices)


def _joined(first: Delta, second: Delta) -> Delta:
    return Delta(
        text=first.text + second.text,
        token_ids=first.token_ids + second.token_ids,
        logprobs=first.logprobs + second.logprobs,
        is_stopped=first.is_stopped or second.is_stopped,
    )


def _log_end(opened: OpenRequest, reason: str, duration_s: float) -> None:
    """The one line per request; a request that ended before its first token has `-` for its time."""
    first_token_ms = "-"
    if opened.first_token_s is not None:
        first_token_ms = f"{1000 * (opened.first_token_s - opened.opened_s):.1f}"
    logger.info(
        "request finished id=%s reason=%s prompt_tokens=%d output_tokens=%d first_token_ms=%s duration_ms=%.1f",
        opened.request.request_id,
        reason,
        len(opened.request.prompt_ids),
        opened.num_output_tokens,
        first_token_ms,
        1000 * duration_s,
    )
