"""`Engine`: the only door to the engine, in the server process.

It refuses what cannot be served, counts what is under way, and puts the tokenizer in front of the
supervised engine process and the streams behind it. It does not know HTTP, nor any tensor.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from engine.clock import Clock, SystemClock, wait_within
from engine.config import EngineConfig
from engine.engine_process import ENGINE_COMMAND
from engine.errors import EngineError, EngineUnavailableError
from engine.insight import Insight
from engine.limits import Limits
from engine.messages import Drain, Load, ModelCard, Submit
from engine.open_requests import OpenRequests
from engine.request import Request
from engine.stream import TokenStream
from engine.supervisor import EngineState, Supervisor
from engine.text.detokenizer import ChoiceText, TextRules
from engine.text.tokenizer_threads import TokenizerThreads, load_tokenizer

if TYPE_CHECKING:
    from engine.text.chat_template import ChatOptions, RenderedChat
    from engine.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)
T = TypeVar("T")

SOON_S = 2.0  # when to try again while the engine starts
LATER_S = 10.0  # when it is on its way out, and another has to take its place


@dataclass(frozen=True, slots=True, kw_only=True)
class Health:
    """How the engine is. `detail` is for people, "" when there is nothing to say."""

    state: EngineState
    detail: str
    generation: int
    num_restarts: int
    load: Load

    def to_error(self) -> EngineUnavailableError:
        """Why requests are not taken in this state, and when to try again."""
        is_coming = self.state in (EngineState.STARTING, EngineState.RESTARTING)
        doing = f": {self.detail}" if self.detail else ""
        return EngineUnavailableError(
            f"the engine is {self.state}{doing}",
            state=self.state.value,
            retry_after_s=SOON_S if is_coming else LATER_S,
        )


class Engine:
    """Takes requests, gives streams.

    All its methods belong to the thread of one event loop. It is started once and stopped once.
    """

    def __init__(
        self,
        config: EngineConfig,
        *,
        load_tokenizer: "Callable[..., Tokenizer]" = load_tokenizer,
        command: Sequence[str] = ENGINE_COMMAND,
        clock: Clock | None = None,
    ) -> None:
        """`command` starts the engine process, with the descriptor of its channel as last argument."""
        self._config = config
        self._clock = clock or SystemClock()
        self._requests = OpenRequests(self._clock.now)
        self._limits = Limits(config.scheduling, self._requests)
        self._supervisor = Supervisor(
            config, self._requests, on_change=self._tell_change, command=command, clock=self._clock
        )
        self.insight = Insight(self._supervisor, self._requests, self._clock)
        if config.model.chat_template is not None:
            load_tokenizer = partial(load_tokenizer, chat_template=Path(config.model.chat_template))
        self._text = TokenizerThreads(Path(config.model.path), load_tokenizer)
        self._loading: asyncio.Task[None] | None = None
        self._closing: EngineState | None = None
        self._supplied_generation = 0
        self._change = asyncio.Event()

    @property
    def model_id(self) -> str:
        """The name under which the model is served; known before it is loaded."""
        return self._config.model.model_id

    @property
    def card(self) -> ModelCard | None:
        """What is known of the model; None until it has been loaded once."""
        return self._supervisor.status.card

    def health(self) -> Health:
        """How the engine is, now."""
        state, detail = self._state()
        generation = self._supervisor.status.generation
        return Health(
            state=state,
            detail=detail,
            generation=generation,
            num_restarts=max(0, generation - 1),
            load=self._supervisor.status.load,
        )

    async def start(self) -> None:
        """Begin to start the engine process and to load the tokenizer; returns at once."""
        assert self._loading is None
        self._supervisor.start()
        self._loading = asyncio.create_task(self._load_tokenizer(), name="loading of the tokenizer")

    async def wait_ready(self) -> None:
        """Return when requests are taken; raise what has ended the engine for good.

        EngineUnavailableError if it was stopped.
        """
        while self._state()[0] is not EngineState.READY:
            if (failure := self._failure()) is not None:
                raise failure.fresh()
            if self._closing is not None:
                raise self._unavailable()
            await self._change.wait()

    async def wait_failed(self) -> EngineError:
        """Return why the engine has ended for good: it could not start, or crashed too often.

        To be stopped is no failure: then this does not return.
        """
        while (failure := self._failure()) is None:
            await self._change.wait()
        return failure.fresh()

    async def stop(self, drain_s: float = 0.0) -> None:
        """Refuse new requests, give those under way `drain_s` to finish, end the rest; return when all is gone.

        May be called at any moment, again, and together with itself: the shortest `drain_s` counts.
        """
        if self._closing is None:
            self._close_door(EngineState.DRAINING)
            self._supervisor.post(Drain())
        await self._wait_idle(drain_s)
        stopping = "the engine is stopping; this request did not finish in time"
        self._requests.end_all(EngineUnavailableError(stopping, state="stopping", retry_after_s=LATER_S))
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait({self._loading})
        self._text.close()
        await self._supervisor.stop()
        self._close_door(EngineState.STOPPED)

    @property
    def tokenizer(self) -> "Tokenizer":
        """The model's tokenizer, for short texts and single tokens; raises while it is not loaded."""
        return self._require_tokenizer()

    async def render_chat(
        self, messages: Sequence[Mapping[str, object]], options: "ChatOptions | None" = None
    ) -> "RenderedChat":
        """The prompt that the model's chat template makes of `messages`, up to the answer.

        Long text is encoded beside the event loop. RequestError if the template refuses it.
        """
        self._require_tokenizer()
        return await self._text.render_chat(messages, options)

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        """Token ids of `text` as a prompt; long text is encoded beside the event loop."""
        self._require_tokenizer()
        return await self._text.encode(text, add_special_tokens=add_special_tokens)

    async def consult(self, work: "Callable[[Tokenizer], T]", size: int) -> T:
        """What `work` makes with the tokenizer, beside the event loop unless `size` characters or tokens are few."""
        self._require_tokenizer()
        return await self._text.consult(work, size)

    async def submit(self, request: Request) -> TokenStream:
        """Hand `request` to the engine; its stream, once it is queued there.

        Refuses what can never be served with a RequestError, and what cannot be served now with a
        RateLimitedError, OverloadedError or EngineUnavailableError. If the caller is cancelled, so is
        the request. Its time runs from here on; a DeadlineError ends it, here or in its stream.
        """
        card = self.card
        if card is None or self._state()[0] is not EngineState.READY:
            raise self._unavailable()
        self._limits.refuse_misfit(request, card)
        self._limits.refuse_overload(request)
        tokenizer = self._require_tokenizer()
        rules = TextRules.of(request.sampling, tokenizer.special_ids, frozenset(card.eos_ids))
        texts = [ChoiceText(tokenizer, rules) for _ in range(request.num_choices)]
        opened = self._requests.open(request, texts, self._supervisor.post)
        self._requests.keep_time(opened, self._clock)
        try:
            if request.sampling.grammar:
                await self._supply_vocabulary()
            # Not `send`: an engine that reads nothing would hold it up beyond the request's time.
            self._supervisor.post(Submit(request=request, first_sequence_id=opened.first_sequence_id))
            await opened.wait_accepted()
        except BaseException:
            await opened.stream.aclose()
            raise
        return opened.stream

    async def _supply_vocabulary(self) -> None:
        """Tell the engine process what tokens spell, once to each: before its first grammar."""
        while self._supplied_generation != self._supervisor.status.generation:
            vocabulary = await self._text.vocabulary()
            if self._supplied_generation != self._supervisor.status.generation:
                self._supplied_generation = self._supervisor.status.generation
                self._supervisor.post(vocabulary)

    async def clear_cache(self) -> int:
        """Forget every cached prefix, for later requests; how many blocks were forgotten.

        What runs goes on undisturbed. EngineUnavailableError while there is no engine process.
        """
        if self._state()[0] not in (EngineState.READY, EngineState.DRAINING):
            raise self._unavailable()
        order, answer = self._requests.orders.open()
        self._supervisor.post(order)
        return await answer

    def _require_tokenizer(self) -> "Tokenizer":
        if self._text.tokenizer is None or self._closing is EngineState.STOPPED:
            raise self._unavailable()
        return self._text.tokenizer

    def _unavailable(self) -> EngineUnavailableError:
        return self.health().to_error()

    def _state(self) -> tuple[EngineState, str]:
        """The state of the whole, and a detail of it for people."""
        if self._closing is not None:
            return self._closing, ""
        if (failure := self._failure()) is not None:
            return EngineState.FAILED, failure.message
        status = self._supervisor.status
        if status.state is EngineState.READY and self._text.tokenizer is None:
            return EngineState.STARTING, "loading the tokenizer"
        return status.state, status.detail

    def _failure(self) -> EngineError | None:
        """What has ended the engine for good; None if nothing has."""
        status = self._supervisor.status
        return status.error if status.state is EngineState.FAILED else self._text.error

    async def _load_tokenizer(self) -> None:
        await self._text.load()
        if self._text.error is not None:
            await self._supervisor.stop()
        self._tell_change()

    async def _wait_idle(self, limit_s: float) -> None:
        idle = asyncio.ensure_future(self._requests.wait_idle())
        try:
            await wait_within(self._clock, limit_s, [idle])
        finally:
            idle.cancel()

    def _close_door(self, state: EngineState) -> None:
        self._closing = state
        self._tell_change()

    def _tell_change(self) -> None:
        """Wake all who wait for a change of state."""
        self._change.set()
        self._change = asyncio.Event()
