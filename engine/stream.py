"""`TokenStream`: what a caller iterates and closes, and `TokenEvent`, what comes out of it.

A stream belongs to the event loop's thread. It buffers at most what its request may produce, so a
slow reader slows nobody. It does not know where events come from, nor HTTP.
"""

import asyncio
from collections.abc import Callable, Sequence
from itertools import chain
from typing import NamedTuple, Self

from engine.errors import EngineError
from engine.prefix_report import PrefixReport
from engine.request import FinishReason, Request
from engine.request_record import RequestRecord
from engine.text.token_logprob import TokenLogprob


class TokenEvent(NamedTuple):
    """News of one choice: text and the tokens it came from, released together.

    `text` may be empty, when only tokens or the end are told. `logprobs` is empty unless asked for, and
    `text_offsets` says where in the choice's text each of them begins. `num_cached_tokens` are those of the
    prompt that were not computed again. `num_output_tokens` counts the choice's tokens so far, also those
    whose text is never shown. `finish_reason` is None but in the choice's last event. `prompt_logprobs` comes
    with the first event of choice 0 where it was asked for: one entry per prompt token, None for the first.
    `prefix_report` comes with it too, where that was asked for.
    """

    choice: int
    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...]
    num_output_tokens: int
    finish_reason: FinishReason | None
    num_cached_tokens: int = 0
    prompt_logprobs: tuple[TokenLogprob | None, ...] = ()
    prefix_report: PrefixReport | None = None
    text_offsets: tuple[int, ...] = ()


class TokenStream:
    """An async iterator over the events of one request, for one reader.

    It ends when every choice has had its finish reason, or raises one EngineError, once, after the
    events that came before it. Events of one choice that wait together are read as one. A reader
    that is cancelled while it waits loses nothing. `is_over` says that no event follows those that wait;
    `record` then tells how the request went.
    """

    def __init__(self, request: Request, *, on_abort: Callable[[], None]) -> None:
        self.request = request
        self.record: RequestRecord | None = None
        self.is_over = False
        self._on_abort = on_abort
        self._waiting: dict[int, list[TokenEvent]] = {}
        self._error: EngineError | None = None
        self._news = asyncio.Event()
        self._listener: Callable[[], None] | None = None

    @property
    def is_exhausted(self) -> bool:
        """Whether it has ended and everything was read, its error too."""
        return self.is_over and not self._waiting and self._error is None

    def listen(self, listener: Callable[[], None]) -> None:
        """Have `listener` called when there is something to `take`, instead of waking who iterates.

        It is called from where news arrives, must not raise, and may take at once.
        """
        self._listener = listener

    def take(self) -> list[TokenEvent]:
        """Everything that waits, one event a choice, without waiting.

        When nothing waits before it, the error that ended the stream is raised, once.
        """
        if not self._waiting and self._error is not None:
            error, self._error = self._error, None
            raise error
        taken = [events[0] if len(events) == 1 else _merged(events) for events in self._waiting.values()]
        self._waiting.clear()
        return taken

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> TokenEvent:
        while not self._waiting:
            if self._error is not None:
                error, self._error = self._error, None
                raise error
            if self.is_over:
                raise StopAsyncIteration
            self._news.clear()
            await self._news.wait()
        return _merged(self._waiting.pop(next(iter(self._waiting))))

    async def aclose(self) -> None:
        """Abort the request unless it has ended, and forget what was not read.

        It never suspends, so it does its work in a cancelled task too. May be called twice.
        """
        self._waiting.clear()
        self._error = None
        if not self.is_over:
            self.end()
            self._on_abort()

    def put(self, event: TokenEvent) -> None:
        """Add an event for the reader, who learns of it by `tell`; not after the end."""
        assert not self.is_over
        waiting = self._waiting.get(event.choice)
        if waiting is None:
            self._waiting[event.choice] = [event]
        else:
            waiting.append(event)

    def end(self, error: EngineError | None = None) -> None:
        """No event follows; `error`, if given, is raised after those that wait. Once only."""
        assert not self.is_over
        self.is_over = True
        self._error = error
        self.tell()

    def tell(self) -> None:
        """Let the reader know of what was put: once for all that came together."""
        if self._listener is None:
            self._news.set()
        else:
            self._listener()


def _merged(events: Sequence[TokenEvent]) -> TokenEvent:
    """Consecutive events of one choice as one."""
    last = events[-1]
    if len(events) == 1:
        return last
    return TokenEvent(
        choice=last.choice,
        text="".join(event.text for event in events),
        token_ids=tuple(chain.from_iterable(event.token_ids for event in events)),
        logprobs=tuple(chain.from_iterable(event.logprobs for event in events)),
        num_output_tokens=last.num_output_tokens,
        finish_reason=last.finish_reason,
        num_cached_tokens=last.num_cached_tokens,
        prompt_logprobs=events[0].prompt_logprobs,
        prefix_report=events[0].prefix_report,
        text_offsets=tuple(chain.from_iterable(event.text_offsets for event in events)),
    )
