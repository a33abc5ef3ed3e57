"""An engine without a model: the interface of `engine.Engine`, and answers that a test scripts.

Its tokens are characters: a prompt's ids are its code points, and an answer's pieces have the ids
of theirs. Unless a test scripts something else, every choice answers "Hello", " wörld", " 🙂".
"""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from engine import (
    ChatOptions,
    ContextLengthError,
    EngineCounters,
    EngineError,
    EngineState,
    EngineUnavailableError,
    EngineView,
    FinishReason,
    Health,
    Load,
    MissReason,
    ModelCard,
    OverloadedError,
    PoolGauges,
    PrefixReport,
    RenderedChat,
    Request,
    RequestError,
    RequestRecord,
    RequestStats,
    Stats,
    TokenEvent,
    TokenLogprob,
)

MODEL_ID = "fake/model"
VOCAB_SIZE = 0x110000
CARD = ModelCard(
    model_id=MODEL_ID,
    family="fake",
    device="cpu",
    dtype="float32",
    vocab_size=VOCAB_SIZE,
    eos_ids=(0,),
    max_context=1000,
    window=None,
    weight_bytes=1,
    block_size=16,
    block_bytes=1,
    num_blocks=64,
)

REPORT = PrefixReport(
    num_matched_tokens=16,
    block_size=16,
    miss_reason=MissReason.EVICTED,
    first_missing_block=1,
    evicted_s_ago=2.5,
)


@dataclass
class Script:
    """How every choice of a request goes: its pieces, then its end, an error, or silence."""

    pieces: tuple[str, ...] = ("Hello", " wörld", " 🙂")
    finish_reason: FinishReason = FinishReason.STOP
    error: Exception | None = None
    is_endless: bool = False
    choice_logprobs: Mapping[int, float] = field(default_factory=dict)


class FakeStream:
    """Plays a script, piece by piece, over the choices of a request."""

    def __init__(self, engine: "FakeEngine", request: Request, script: Script) -> None:
        self.request = request
        self._engine = engine
        self._script = script
        self._events = self._play()
        self._is_closed = False
        self._begun: set[int] = set()
        self.record: RequestRecord | None = None
        self._playing: asyncio.Task[None] | None = None
        self._waiting: list[TokenEvent] = []
        self._error: Exception | None = None

    def __aiter__(self) -> "FakeStream":
        return self

    async def __anext__(self) -> TokenEvent:
        return await anext(self._events)

    @property
    def is_over(self) -> bool:
        assert self._playing is not None
        return self._playing.done()

    @property
    def is_exhausted(self) -> bool:
        assert self._playing is not None
        return self._playing.done() and not self._waiting and self._error is None

    def listen(self, listener: Callable[[], None]) -> None:
        self._playing = asyncio.create_task(self._put_all())
        self._playing.add_done_callback(lambda _: listener())
        self._listener = listener

    def take(self) -> list[TokenEvent]:
        if not self._waiting and self._error is not None:
            error, self._error = self._error, None
            raise error
        taken, self._waiting = self._waiting, []
        return taken

    async def _put_all(self) -> None:
        try:
            async for event in self._events:
                self._waiting.append(event)
                self._listener()
        except Exception as error:  # noqa: BLE001  `take` raises it
            self._error = error

    async def aclose(self) -> None:
        if self._playing is not None:
            self._playing.cancel()
            await asyncio.gather(self._playing, return_exceptions=True)
        if not self._is_closed:
            self._is_closed = True
            self.record = a_record(self.request)
            self._engine.close(self.request)

    async def _play(self):
        script, counts = self._script, defaultdict(int)
        if self.request.sampling.max_tokens == 0:
            for choice in range(self.request.num_choices):
                yield self._event(choice, "", 0, FinishReason.LENGTH)
            return
        for position, piece in enumerate(script.pieces):
            await self._engine.gate.wait()
            is_last = position == len(script.pieces) - 1
            ends = is_last and script.error is None and not script.is_endless
            for choice in range(self.request.num_choices):
                counts[choice] += len(piece)
                yield self._event(choice, piece, counts[choice], script.finish_reason if ends else None)
        if script.error is not None:
            raise script.error
        if script.is_endless:
            await self._engine.stopping.wait()
            raise EngineUnavailableError("this request did not finish in time", "stopping")

    def _event(self, choice: int, piece: str, count: int, finish_reason: FinishReason | None) -> TokenEvent:
        sampling = self.request.sampling
        logprobs = ()
        if sampling.logprobs:
            value = self._script.choice_logprobs.get(choice, -0.5)
            logprobs = tuple(scored(c, value, sampling.num_top_logprobs) for c in piece)
        prompt_logprobs = ()
        if sampling.prompt_logprobs is not None and choice == 0 and choice not in self._begun:
            rest = map(chr, self.request.prompt_ids[1:])
            prompt_logprobs = (None, *(scored(c, -0.25, sampling.prompt_logprobs) for c in rest))
        is_asked = self.request.wants_prefix_report and choice == 0 and choice not in self._begun
        report = REPORT if is_asked else None
        self._begun.add(choice)
        return TokenEvent(
            choice=choice,
            text=piece,
            token_ids=tuple(map(ord, piece)),
            logprobs=logprobs,
            num_output_tokens=count,
            finish_reason=finish_reason,
            prompt_logprobs=prompt_logprobs,
            prefix_report=report,
            text_offsets=tuple(range(count - len(piece), count)) if logprobs else (),
        )


def a_record(request: Request, **changes: object) -> RequestRecord:
    """How a request may have gone: opened at 10 s, begun at 11, first token at 12, ended at 14."""
    facts = {
        "request": request,
        "reason": "stop",
        "num_cached_tokens": 2,
        "num_output_tokens": 7,
        "opened_s": 10.0,
        "waited_s": 1.0,
        "first_token_s": 12.0,
        "ended_s": 14.0,
    }
    return RequestRecord(**{**facts, **changes})


def scored(character: str, logprob: float, num_top: int = 0) -> TokenLogprob:
    """A character as a token, with the letters from A on as its better alternatives."""
    top = tuple(scored(chr(65 + rank), -0.125 * (rank + 1)) for rank in range(num_top))
    return TokenLogprob(
        token_id=ord(character),
        text=character,
        token_bytes=character.encode(),
        logprob=logprob,
        rank=num_top + 1,
        top=top,
    )


class FakeTokenizer:
    """Characters as tokens; the names in `special` are tokens of their own."""

    def __init__(
        self,
        special: Mapping[str, int],
        template_variables: frozenset[str],
        template_source: str = "",
        reads_tools: bool = False,
    ) -> None:
        self.template_source = template_source
        self.reads_tools = reads_tools
        self._special = dict(special)
        self._names = {token_id: name for name, token_id in special.items()}
        self.special_ids = frozenset(special.values())
        self.template_variables = template_variables

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        return list(map(ord, text))

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = True) -> str:
        shown = (i for i in ids if not (skip_special_tokens and i in self.special_ids))
        # Half of a surrogate pair is no text, and no tokenizer makes it one.
        return "".join(self._names.get(i) or chr(i) for i in shown).encode("utf-8", "replace").decode()

    def token_bytes(self, token_id: int) -> bytes:
        return (self._names.get(token_id) or chr(token_id)).encode("utf-8", "replace")

    @property
    def start_id(self) -> int | None:
        return self._special.get("<s>")

    def least_tokens(self, text: str) -> int:
        return len(text)

    def find(self, token: str) -> int | None:
        return self._special.get(token)


@dataclass
class FakeEngine:
    """`state` may be changed at any time; `requests`, `open_ids` and `closed_ids` tell what came."""

    script: Script = field(default_factory=Script)
    state: EngineState = EngineState.READY
    detail: str = ""
    card: ModelCard | None = CARD
    model_id: str = MODEL_ID
    max_open: int = 1000
    submit_error: Exception | None = None
    requests: list[Request] = field(default_factory=list)
    messages: list[Sequence[Mapping[str, object]]] = field(default_factory=list)
    open_ids: set[str] = field(default_factory=set)
    closed_ids: list[str] = field(default_factory=list)
    options: list[ChatOptions | None] = field(default_factory=list)
    refuses_system: bool = False
    special: Mapping[str, int] = field(default_factory=dict)
    template_variables: frozenset[str] = frozenset({"reasoning_effort", "enable_thinking"})
    template_source: str = ""
    reads_tools: bool = False
    prompt_end: str = ""
    num_known_blocks: int = 3
    counters: EngineCounters = field(default_factory=EngineCounters)
    pool: PoolGauges = field(default_factory=PoolGauges)
    request_stats: RequestStats = field(default_factory=RequestStats)
    view: EngineView | None = None
    silent_s: float | None = 0.5
    num_starts: int = 0
    num_stops: int = 0

    def __post_init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_ready = asyncio.Event()
        self.has_failed = asyncio.Event()
        self.failure: EngineError | None = None
        self.draining = asyncio.Event()
        self.stopping = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.closed = asyncio.Event()

    async def start(self) -> None:
        self.num_starts += 1
        if self.state == EngineState.READY:
            self.is_ready.set()

    async def wait_ready(self) -> None:
        await self.is_ready.wait()

    async def wait_failed(self) -> EngineError:
        await self.has_failed.wait()
        assert self.failure is not None
        return self.failure

    async def stop(self, drain_s: float = 0.0) -> None:
        self.num_stops += 1
        self.state = EngineState.DRAINING
        self.draining.set()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.idle.wait(), drain_s)
        self.stopping.set()
        self.state = EngineState.STOPPED

    def fail(self, error: EngineError) -> None:
        self.state = EngineState.FAILED
        self.failure = error
        self.has_failed.set()

    @property
    def tokenizer(self) -> FakeTokenizer:
        self._require_ready()
        return FakeTokenizer(self.special, self.template_variables, self.template_source, self.reads_tools)

    async def render_chat(
        self, messages: Sequence[Mapping[str, object]], options: ChatOptions | None = None
    ) -> RenderedChat:
        self._require_ready()
        self.messages.append(messages)
        self.options.append(options)
        if self.refuses_system and any(m["role"] == "system" for m in messages):
            raise RequestError("the template knows no system", "messages")
        text = "".join(f"{m['role']}:{m['content']}\n" for m in messages) + self.prompt_end
        return RenderedChat(text=text, token_ids=tuple(map(ord, text)))

    async def encode(self, text: str, *, add_special_tokens: bool = True) -> tuple[int, ...]:
        self._require_ready()
        return tuple(map(ord, text))

    async def consult(self, work, size: int):
        return work(self.tokenizer)

    async def submit(self, request: Request) -> FakeStream:
        self._require_ready()
        if self.submit_error is not None:
            raise self.submit_error
        if request.max_total_tokens > CARD.max_context:
            raise ContextLengthError(f"at most {CARD.max_context} tokens fit", "max_tokens")
        request.refuse_foreign_ids(VOCAB_SIZE)
        if len(self.open_ids) + request.num_choices > self.max_open:
            raise OverloadedError("too many are waiting", 2.5)
        self.requests.append(request)
        self.open_ids.add(request.request_id)
        self.idle.clear()
        return FakeStream(self, request, self.script)

    async def clear_cache(self) -> int:
        self._require_ready()
        forgotten, self.num_known_blocks = self.num_known_blocks, 0
        return forgotten

    def close(self, request: Request) -> None:
        self.open_ids.discard(request.request_id)
        self.closed_ids.append(request.request_id)
        self.closed.set()
        if not self.open_ids:
            self.idle.set()

    def health(self) -> Health:
        return Health(
            state=self.state,
            detail=self.detail,
            generation=1,
            num_restarts=0,
            load=Load(num_running=len(self.open_ids)),
        )

    @property
    def insight(self) -> "FakeEngine":
        return self

    def stats(self) -> Stats:
        return Stats(
            counters=self.counters,
            pool=self.pool,
            requests=self.request_stats,
            ages_s=dict.fromkeys(self.open_ids, 1.5),
            silent_s=self.silent_s,
            pid=None,
        )

    async def inspect(self, limit_s: float) -> EngineView | None:
        return self.view

    def _require_ready(self) -> None:
        if self.state != EngineState.READY:
            raise EngineUnavailableError(f"not now: {self.detail}", self.state.value, 1.5)
