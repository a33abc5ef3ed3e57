"""The whole core of the engine on a thread, behind a real channel: everything but the process.

The test holds the server's end, speaks messages, and may look at pool and scheduler once the loop
is idle.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from engine.build import BuiltEngine, build_engine
from engine.channel import BlockingEnd, channel_pair
from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulingConfig
from engine.errors import EngineError
from engine.messages import Abort, Accepted, Finish, Load, Loading, Pulse, Refused, Submit, Updates
from engine.outbox import Outbox
from engine.request import FinishReason, Request, SamplingParams
from engine.text.tokenizer import Tokenizer
from engine.token_scores import TokenScores


@dataclass
class Output:
    """What one choice got."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    ranks: list[int] = field(default_factory=list)
    top: list[dict[int, float]] = field(default_factory=list)
    prompt: list[TokenScores] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    error: EngineError | None = None

    @property
    def has_ended(self) -> bool:
        return self.finish_reason is not None or self.error is not None

    @property
    def prompt_logprobs(self) -> list[float]:
        """Of all prompt tokens but the first."""
        return [logprob for scores in self.prompt for logprob in scores.logprobs]


class ThreadedEngine:
    """Submits requests and collects their outputs."""

    def __init__(self, built: BuiltEngine, channel: BlockingEnd, path: Path) -> None:
        self._path = path
        self._has_vocabulary = False
        self.built = built
        self.load = Load()
        self.max_blocks_held = 0
        self._channel = channel
        self._requests: dict[str, tuple[Request, int]] = {}
        self._outputs: dict[int, Output] = {}
        self._next_id = 0

    def submit(self, request: Request) -> list[Output]:
        """Send a request; its outputs fill as messages are received."""
        if request.sampling.grammar and not self._has_vocabulary:
            self._has_vocabulary = True
            self._channel.send(Tokenizer.load(self._path).vocabulary())
        first = self._next_id
        self._next_id += request.num_choices
        self._requests[request.request_id] = (request, first)
        outputs = [Output() for _ in range(request.num_choices)]
        self._outputs |= {first + choice: output for choice, output in enumerate(outputs)}
        self._channel.send(Submit(request=request, first_sequence_id=first))
        return outputs

    def abort(self, request_id: str) -> None:
        self._channel.send(Abort(request_id=request_id))

    def finish(self, request_id: str, choice: int) -> None:
        self._channel.send(Finish(request_id=request_id, choice=choice))

    def receive(self) -> None:
        """Take in one message."""
        message = self._channel.receive()
        assert message is not None, "the engine ended"
        match message:
            case Updates():
                self._take(message)
            case Pulse(load=load):
                self._see(load)
            case Refused(request_id=request_id, error=error):
                request, first = self._requests[request_id]
                for choice in range(request.num_choices):
                    self._outputs[first + choice].error = error
            case Accepted() | Loading():
                pass
            case _:
                raise AssertionError(message)

    def run(self, *requests: Request) -> list[list[Output]]:
        """Submit all at once and wait for every output."""
        outputs = [self.submit(request) for request in requests]
        self.wait(output for own in outputs for output in own)
        return outputs

    def wait(self, outputs: Iterator[Output]) -> None:
        """Receive until all of them have ended."""
        for output in outputs:
            while not output.has_ended:
                self.receive()

    def wait_idle(self) -> None:
        """Receive until nothing runs or waits."""
        self.receive()
        while self.load.num_running or self.load.num_waiting:
            self.receive()

    def _take(self, updates: Updates) -> None:
        tokens, logprobs = iter(updates.token_ids), iter(zip(updates.logprobs, updates.ranks, strict=True))
        top = iter(zip(updates.top_ids, updates.top_logprobs, strict=True))
        for sequence_id, scores in updates.prompt_scores:
            self._outputs[sequence_id].prompt.append(scores)
        asks = {
            first + choice
            for request, first in self._requests.values()
            if request.sampling.logprobs
            for choice in range(request.num_choices)
        }
        num_top = updates.num_top or (0,) * len(updates.sequence_ids)
        for sequence_id, count, reason, num_alternatives in zip(
            updates.sequence_ids, updates.num_tokens, updates.finish_reasons, num_top, strict=True
        ):
            output = self._outputs[sequence_id]
            output.token_ids += [next(tokens) for _ in range(count)]
            if sequence_id in asks:
                for _ in range(count):
                    logprob, rank = next(logprobs)
                    output.logprobs.append(logprob)
                    output.ranks.append(rank)
                    output.top.append(dict(next(top) for _ in range(num_alternatives)))
            output.finish_reason = reason
        for sequence_id, error in updates.failures:
            self._outputs[sequence_id].error = error
        self._see(updates.load)

    def _see(self, load: Load) -> None:
        self.load = load
        held = self.built.card.num_blocks - load.num_free_blocks
        self.max_blocks_held = max(self.max_blocks_held, held)


@contextmanager
def threaded_engine(
    path: Path,
    *,
    model: dict[str, object] | None = None,
    cache: dict[str, object] | None = None,
    scheduling: dict[str, object] | None = None,
) -> Iterator[ThreadedEngine]:
    """An engine for the checkpoint at `path`: float64 on the CPU unless told otherwise."""
    defaults = ModelConfig(path=str(path), model_id="tiny", device="cpu", dtype="float64", cpu_threads=1)
    config = EngineConfig(
        model=replace(defaults, **(model or {})),
        cache=CacheConfig(**{"block_size": 4, "kv_cache_bytes": 1 << 20, **(cache or {})}),
        scheduling=SchedulingConfig(**(scheduling or {})),
    )
    ours, theirs = channel_pair()
    channel, engine_end = BlockingEnd(ours), BlockingEnd(theirs)
    outbox = Outbox(engine_end)
    built = build_engine(config, engine_end.receive, outbox)
    outbox.start()
    built.intake.start()
    loop = threading.Thread(target=built.loop.run, name="loop")
    loop.start()
    try:
        yield ThreadedEngine(built, channel, path)
    finally:
        channel.close()
        loop.join(30)
        outbox.close()
        engine_end.close()


def tiny_request(
    request_id: str, prompt_ids: tuple[int, ...], *, n: int = 1, priority: int = 0, **sampling: object
) -> Request:
    """A greedy request that runs to max_tokens unless told otherwise."""
    params = {"max_tokens": 8, "seed": 0, "temperature": 0.0, "ignore_eos": True, **sampling}
    return Request(
        request_id=request_id,
        prompt_ids=prompt_ids,
        sampling=SamplingParams(**params),
        num_choices=n,
        priority=priority,
    )
