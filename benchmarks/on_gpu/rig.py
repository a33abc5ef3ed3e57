"""`Rig`: scheduler, pool and runner around a model of random weights, wired as the engine process does it.

It imports neither the reader of checkpoints nor the grammars, so that torch, triton and numpy are all it needs.
"""

import gc
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from benchmarks.on_gpu.ops import kernels_for
from benchmarks.on_gpu.place import Place
from benchmarks.on_gpu.shapes import random_decoder
from engine.cache.layout import CacheDemand
from engine.cache.pool import CachePool
from engine.config import CacheConfig, SchedulingConfig
from engine.execution.device import CACHE_DTYPES
from engine.execution.placement import Placement, place_on_gpu
from engine.execution.trial import TrialParts
from engine.kernels.cached import scale_bytes
from engine.messages import Updates
from engine.models.decoder import Decoder
from engine.plan import StepPlan
from engine.request import Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import make_sequences

FIRST_ID = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Dials:
    """How the engine is set for a load."""

    max_running: int = 256
    max_step_tokens: int = 1024
    max_chunk_tokens: int = 512
    steps_in_flight: int = 2
    is_eager: bool = False
    is_deterministic: bool = False
    quantization: str = "none"
    kv_dtype: str = "auto"
    cache_bytes: int | None = None


class NoMasks:
    """No draw is masked here."""

    def fill(self, sequence_ids: Sequence[int]) -> object:
        raise AssertionError(f"sequences {sequence_ids} are masked")


@dataclass(frozen=True, slots=True, kw_only=True)
class StepTime:
    """A step that was committed: when, and what it had."""

    at_s: float
    num_tokens: int
    num_drawn: int
    num_rows: int


@dataclass(slots=True, kw_only=True)
class Rig:
    """Runs requests, and keeps when every step was committed."""

    place: Place
    dials: Dials
    decoder: Decoder
    placement: Placement
    scheduler: Scheduler
    setup_s: float
    steps: list[StepTime] = field(default_factory=list)
    outputs: dict[int, list[int]] = field(default_factory=dict)
    _in_flight: deque = field(default_factory=deque)
    _next_id: int = 0

    @classmethod
    def make(cls, place: Place, dials: Dials, seed: int = 0) -> "Rig":
        """Weights, cache, recorded steps, and a scheduler over them."""
        gc.unfreeze()  # a rig before this one may still be in memory
        gc.collect()
        start = time.perf_counter()
        spec = place.spec
        kernels = kernels_for(place, dials.quantization, is_deterministic=dials.is_deterministic)
        kit = kernels.kit
        decoder = random_decoder(spec, kit, seed)
        dtype = kit.dtype if dials.kv_dtype == "auto" else CACHE_DTYPES[dials.kv_dtype]
        scheduling = SchedulingConfig(
            max_running=dials.max_running,
            max_step_tokens=max(dials.max_step_tokens, dials.max_running),
            max_chunk_tokens=dials.max_chunk_tokens,
            max_waiting=100_000,
        )
        demand = CacheDemand(
            block_size=16,
            cache_bytes=0,
            max_chunk_tokens=dials.max_chunk_tokens,
            element_bytes=dtype.itemsize,
            scale_bytes=scale_bytes(dtype),
        )
        gpu = place.gpu
        parts = TrialParts(
            model=decoder, spec=spec, demand=demand, scheduling=scheduling, link=gpu.new_link(), masks=NoMasks(),
            device=place.device, dtype=dtype, draw=kernels.draw,
        )  # fmt: skip
        cache = CacheConfig(kv_cache_bytes=dials.cache_bytes)
        placement = place_on_gpu(gpu, parts, cache, is_eager=dials.is_eager, report=_tell_nobody)
        scheduler = Scheduler(scheduling, CachePool(placement.layout), frozenset())
        gc.collect()
        gc.freeze()
        place.wait()
        return cls(
            place=place, dials=dials, decoder=decoder, placement=placement, scheduler=scheduler,
            setup_s=time.perf_counter() - start,
        )  # fmt: skip

    def add(self, num_inputs: int, num_outputs: int, **sampling: object) -> int:
        """Queue a request with a prompt of its own; its id."""
        number = self._next_id
        self._next_id += 1
        span = self.place.spec.vocab_size - FIRST_ID
        prompt = tuple(FIRST_ID + (number * 7919 + 104_729 * i) % span for i in range(num_inputs))
        params = SamplingParams(
            **{"max_tokens": num_outputs, "seed": number, "temperature": 0.0, "ignore_eos": True, **sampling}
        )
        request = Request(request_id=str(number), prompt_ids=prompt, sampling=params)
        tables = [self.placement.layout.new_tables()]
        self.scheduler.add(make_sequences(request, number, tables, has_prefix_cache=False))
        self.outputs[number] = []
        return number

    def turns(self) -> Iterator[Updates | None]:
        """One turn of the engine's loop after another while there is work; its news, if a step was committed."""
        runner = self.placement.runner
        while self.scheduler.has_work or self._in_flight:
            plan = self.scheduler.plan()
            if plan.chunks:
                self._in_flight.append(runner.begin(plan))
            updates = None
            if self._in_flight and (len(self._in_flight) == self.dials.steps_in_flight or not plan.chunks):
                step = self._in_flight.popleft()
                updates = self.scheduler.commit(step.plan, runner.finish(step))
                self._note(step.plan, updates)
            yield updates

    def run(self, until: Callable[[], bool] | None = None) -> None:
        """Turn until `until` says so, or until nothing is left."""
        for _ in self.turns():
            if until is not None and until():
                return

    def abandon(self) -> None:
        """Drop what is left, and wait for what is under way."""
        for number in range(self._next_id):
            self.scheduler.abort(str(number))
        self.run()

    def rate(self, steps: Sequence[StepTime]) -> float:
        """Drawn tokens a second over steps that follow one another; the first one is where time begins."""
        return sum(step.num_drawn for step in steps[1:]) / (steps[-1].at_s - steps[0].at_s)

    def _note(self, plan: StepPlan, updates: Updates) -> None:
        tokens = iter(updates.token_ids)
        for sequence_id, count in zip(updates.sequence_ids, updates.num_tokens, strict=True):
            self.outputs[sequence_id] += [next(tokens) for _ in range(count)]
        self.steps.append(
            StepTime(
                at_s=time.perf_counter(),
                num_tokens=plan.num_tokens,
                num_drawn=len(updates.token_ids),
                num_rows=len(plan.chunks),
            )
        )


def _tell_nobody(_done: int, _total: int) -> None:
    pass
