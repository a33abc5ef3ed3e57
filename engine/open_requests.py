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

from engine.clock import Clock
from engine.errors import DeadlineError, EngineError, EngineUnavailableError
from engine.logs import shown_ms
from engine.messages import (
    Abort,
    Accepted,
    CacheCleared,
    Drained,
    Refused,
    Updates,
)
from engine.open_orders import OpenOrders
from engine.open_request import OpenRequest, Post
from engine.request import MAX_CHOICES, FinishReason, Request
from engine.request_record import ABORTED, RequestTally
from engine.stream import TokenStream
from engine.text.detokenizer import ChoiceText
from engine.token_scores import TokenScores

logger = logging.getLogger(__name__)

SCORED = MAX_CHOICES  # the bit of a sequence id that says: this one's tokens have log-probabilities
SEQUENCE_ID_STRIDE = 2 * MAX_CHOICES
NEWEST_WEIGHT = 0.2  # of the last request in the running mean of durations


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
        self.tally = RequestTally()
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
    def ages_s(self) -> dict[str, float]:
        """How long each request has been open, by its id."""
        now_s = self._now()
        return {request_id: now_s - opened.opened_s for request_id, opened in self._requests.items()}

    @property
    def num_sequences(self) -> int:
        """Sequences that have not ended, of all requests together."""
        return len(self._by_sequence)

    def num_sequences_of(self, caller: str) -> int:
        """Of these, those of one caller."""
        return sum(opened.request.caller == caller for opened in self._by_sequence.values())

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

    def keep_time(self, opened: OpenRequest, clock: Clock) -> None:
        """End a request with a DeadlineError when its time is over, wherever it is then."""
        timeout_s = opened.request.timeout_s
        if timeout_s is not None:
            opened.timer = asyncio.create_task(self._expire(opened, clock, timeout_s))

    def hear(self, message: Updates | Accepted | Refused | CacheCleared | Drained) -> None:
        """Take news from the engine process; what tells of a request that has ended is dropped."""
        match message:
            case Updates():
                if message.waited_s:
                    self._take_waits(message)
                if message.prompt_scores:
                    self._take_prompt_scores(message)
                if message.num_cached or message.prefix_reports:
                    self._take_prefixes(message)
                self._take_rows(message)
                if message.failures:
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

    def _take_waits(self, updates: Updates) -> None:
        for sequence_id, waited_s in updates.waited_s:
            opened = self._by_sequence.get(sequence_id)
            if opened is not None and opened.waited_s is None:
                opened.waited_s = waited_s
                self.tally.waited(waited_s)

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
        news: dict[TokenStream, None] = {}
        now_s = self._now()
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
                news[opened.stream] = None
                if num_tokens:
                    self._time(opened, sequence_id - opened.first_sequence_id, num_tokens, now_s)
                self._feed(opened, sequence_id, token_ids, logprobs, finish_reason)
        for stream in news:
            stream.tell()

    def _feed(
        self,
        opened: OpenRequest,
        sequence_id: int,
        token_ids: tuple[int, ...],
        logprobs: TokenScores | None,
        finish_reason: FinishReason | None,
    ) -> None:
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

    def _time(self, opened: OpenRequest, choice: int, num_tokens: int, now_s: float) -> None:
        """Tokens of a choice came now; of several at once each counts an equal part of the time."""
        last_s = opened.last_token_s.get(choice)
        opened.last_token_s[choice] = now_s
        self.tally.num_generated_tokens += num_tokens
        if last_s is not None:
            self.tally.inter_token_s.observe((now_s - last_s) / num_tokens, num_tokens)
        elif opened.first_token_s is None:
            opened.first_token_s = now_s
            num_prompt = len(opened.request.prompt_ids)
            self.tally.first_token(now_s - opened.opened_s, num_prompt, opened.num_cached_tokens)

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

    async def _expire(self, opened: OpenRequest, clock: Clock, timeout_s: float) -> None:
        await clock.sleep(timeout_s)
        opened.timer = None
        opened.post(Abort(request_id=opened.request.request_id))
        over = f"the request's time, {timeout_s:g} s, was over after {opened.num_output_tokens} tokens"
        self._fail(opened, DeadlineError(f"{over}; allow it more, or ask for less"))

    def _abort(self, request_id: str) -> None:
        opened = self._requests[request_id]
        opened.post(Abort(request_id=request_id))
        self._forget(opened, ABORTED)

    def _forget(self, opened: OpenRequest, reason: str) -> None:
        del self._requests[opened.request.request_id]
        if opened.timer is not None:
            opened.timer.cancel()
        for sequence_id in _sequence_ids(opened):
            self._by_sequence.pop(sequence_id, None)
        if not self._requests:
            self._idle.set()
        record = opened.to_record(reason, self._now())
        opened.stream.record = record
        self.tally.ended(record)
        if opened.first_token_s is not None:  # else it says nothing of how long one takes
            weight = NEWEST_WEIGHT if self._mean_duration_s else 1.0
            self._mean_duration_s += weight * (record.duration_s - self._mean_duration_s)
        logger.debug(
            "request ended id=%s reason=%s output_tokens=%d queue_ms=%s first_token_ms=%s duration_ms=%.1f",
            record.request.request_id, reason, record.num_output_tokens, shown_ms(record.waited_s),
            shown_ms(record.to_first_token_s), 1000 * record.duration_s,
        )  # fmt: skip


def _sequence_ids(opened: OpenRequest) -> range:
    return range(opened.first_sequence_id, opened.first_sequence_id + opened.request.num_choices)
