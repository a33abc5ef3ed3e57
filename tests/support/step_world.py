"""Scheduler, pool, cache, a small real model and a runner, stepped by hand: no thread, no channel, no clock.

What is submitted, aborted and finished at which step is a script, so that two ways to run steps can be compared.
"""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from engine.cache.layout import CacheLayout
from engine.cache.pool import CachePool
from engine.cache.store import CacheStore
from engine.config import SchedulingConfig
from engine.execution.device_runner import DeviceParts, DeviceRunner
from engine.execution.link import CudaLink, HostLink
from engine.execution.runner import ModelRunner
from engine.layers.kit import LayerKit
from engine.messages import Updates
from engine.model_spec import ModelSpec
from engine.models.blocks import LlamaBlock
from engine.models.decoder import Decoder
from engine.plan import Runner
from engine.request import FinishReason, Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import Sequence, make_sequences
from tests.support.layer_kit import cpu_kit
from tests.support.specs import small_layout, small_spec

VOCAB_SIZE = 64
EOS_ID = 0
MAX_CONTEXT = 64
MAX_STEPS = 5000


class TakesTurns:
    """A constraint that asks nothing of the library: the n-th token drawn is n modulo 3."""

    failure = None
    is_complete = False

    def __init__(self) -> None:
        self.num_taken = 0

    def advance(self, token_id: int) -> None:
        assert token_id % 3 == self.num_taken % 3, "drawn with the mask of another token"
        self.num_taken += 1


@dataclass
class TurnMasks:
    """The masks of `TakesTurns`, by sequence id."""

    constraints: dict[int, TakesTurns] = field(default_factory=dict)

    def fill(self, sequence_ids):
        bits = np.zeros((len(sequence_ids), VOCAB_SIZE // 32), dtype=np.uint32)
        for row, sequence_id in enumerate(sequence_ids):
            for token_id in range(self.constraints[sequence_id].num_taken % 3, VOCAB_SIZE, 3):
                bits[row, token_id // 32] |= np.uint32(1 << token_id % 32)
        filled = Future()
        filled.set_result(bits.view(np.int32))
        return filled


@dataclass(frozen=True)
class Job:
    """A request, and what becomes of it when: counted in turns of the loop."""

    request: Request
    at: int = 0
    abort_at: int | None = None
    finish_at: int | None = None


@dataclass
class Outcome:
    """What one choice got."""

    token_ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    reason: FinishReason | None = None


@dataclass(frozen=True)
class Parts:
    """What a runner is made of."""

    model: Decoder
    store: CacheStore
    layout: CacheLayout
    masks: TurnMasks
    max_running: int
    steps_in_flight: int


def plain_runner(parts: Parts) -> Runner:
    """The runner that computes as it begins."""
    return ModelRunner(parts.model, parts.store, parts.layout, masks=parts.masks)


def device_runner(parts: Parts, *, is_recorded: bool = True) -> DeviceRunner:
    """The runner for devices, with the host in the place of one, and calls in the place of replays."""
    runner = DeviceRunner(
        DeviceParts(
            model=parts.model,
            store=parts.store,
            layout=parts.layout,
            link=HostLink() if parts.store.device.type == "cpu" else CudaLink(parts.store.device),
            masks=parts.masks,
            max_running=parts.max_running,
        )
    )
    if is_recorded:
        runner.record(lambda done, total: None)
    return runner


def eager_device_runner(parts: Parts) -> DeviceRunner:
    """The same without a recorded step."""
    return device_runner(parts, is_recorded=False)


def world_spec(windows: tuple[int | None, ...]) -> ModelSpec:
    """Two layers at least, grouped queries, a vocabulary of 64."""
    return replace(
        small_spec(*windows, max_context=MAX_CONTEXT),
        num_heads=4,
        num_kv_heads=2,
        head_size=8,
        model_size=16,
        ffn_size=24,
        vocab_size=VOCAB_SIZE,
        eos_ids=(EOS_ID,),
    )


def random_decoder(
    spec: ModelSpec, seed: int = 0, dtype: torch.dtype = torch.float64, kit: LayerKit | None = None
) -> Decoder:
    """Weights drawn wide enough that a wrong key shows; the head is scaled so that all tokens come up."""
    decoder = Decoder(spec, kit or cpu_kit(dtype), LlamaBlock)
    generator = torch.Generator().manual_seed(seed)
    for name, weight in decoder.named_parameters():
        center = 1.0 if "norm" in name else 0.0
        weight.copy_(center + 0.4 * torch.randn(weight.shape, generator=generator))
    return decoder


@dataclass
class StepWorld:
    """Runs jobs to their end and checks what must hold of any run."""

    model: Decoder
    windows: tuple[int | None, ...]
    make_runner: Callable[[Parts], Runner] = plain_runner
    block_size: int = 4
    num_blocks: int | None = None
    max_chunk_tokens: int = 8
    max_step_tokens: int = 32
    max_running: int = 8
    steps_in_flight: int = 1
    has_prefix_cache: bool = True

    def __post_init__(self) -> None:
        dials = {
            "block_size": self.block_size,
            "max_chunk_tokens": self.max_chunk_tokens,
            "max_context": MAX_CONTEXT,
        }
        roomy = small_layout(*self.windows, num_blocks=10_000, **dials)
        num_blocks = self.num_blocks or roomy.num_blocks_for(MAX_CONTEXT) * self.max_running
        self.layout = replace(roomy, num_blocks=num_blocks)
        weight = self.model.norm.weight
        store = CacheStore.allocate(
            self.layout, self.model.spec, device=weight.device, dtype=weight.dtype, num_spare_blocks=1
        )
        self.pool = CachePool(self.layout)
        config = SchedulingConfig(
            max_step_tokens=max(self.max_step_tokens, self.max_running),
            max_chunk_tokens=self.max_chunk_tokens,
            max_running=self.max_running,
        )
        self.scheduler = Scheduler(config, self.pool, frozenset(self.model.spec.eos_ids), lambda: 0.0)
        self.masks = TurnMasks()
        self.runner = self.make_runner(
            Parts(self.model, store, self.layout, self.masks, self.max_running, self.steps_in_flight)
        )
        self.sequences: dict[int, Sequence] = {}
        self.outcomes: dict[int, Outcome] = {}
        self.num_drawn = 0

    def run(self, *jobs: Job) -> list[list[Outcome]]:
        """The outcomes of each job's choices; every block is free again afterwards."""
        mine = [self._sequences_of(job) for job in jobs]
        in_flight: deque = deque()
        turn = 0
        while turn <= max(job.at for job in jobs) or self.scheduler.has_work or in_flight:
            self._act(turn, jobs, mine)
            plan = self.scheduler.plan()
            if plan.chunks:
                in_flight.append(self.runner.begin(plan))
            if in_flight and (len(in_flight) == self.steps_in_flight or not plan.chunks):
                step = in_flight.popleft()
                self._note(self.scheduler.commit(step.plan, self.runner.finish(step)))
            turn += 1
            assert turn < MAX_STEPS, "no end"
        assert self.pool.num_free_blocks == self.layout.num_blocks
        return [[self.outcomes[own.sequence_id] for own in sequences] for sequences in mine]

    def _sequences_of(self, job: Job) -> tuple[Sequence, ...]:
        tables = [self.layout.new_tables() for _ in range(job.request.num_choices)]
        made = make_sequences(
            job.request, len(self.sequences), tables, has_prefix_cache=self.has_prefix_cache
        )
        for sequence in made:
            self.sequences[sequence.sequence_id] = sequence
            self.outcomes[sequence.sequence_id] = Outcome()
            if job.request.sampling.grammar:
                sequence.constraint = self.masks.constraints[sequence.sequence_id] = TakesTurns()
        return made

    def _act(self, turn: int, jobs: tuple[Job, ...], mine: list[tuple[Sequence, ...]]) -> None:
        for job, sequences in zip(jobs, mine, strict=True):
            if job.at == turn:
                self.scheduler.add(sequences)
            if job.abort_at == turn:
                self.scheduler.abort(job.request.request_id)
            if job.finish_at == turn:
                self.scheduler.finish(job.request.request_id, 0)

    def _note(self, updates: Updates) -> None:
        assert not updates.failures
        tokens, logprobs = iter(updates.token_ids), iter(updates.logprobs)
        for sequence_id, count, reason in zip(
            updates.sequence_ids, updates.num_tokens, updates.finish_reasons, strict=True
        ):
            outcome, sequence = self.outcomes[sequence_id], self.sequences[sequence_id]
            assert outcome.reason is None, "news after the end"
            outcome.token_ids += [next(tokens) for _ in range(count)]
            if sequence.request.sampling.logprobs:
                outcome.logprobs += [next(logprobs) for _ in range(count)]
            outcome.reason = reason
            self.num_drawn += count
            assert len(outcome.token_ids) == sequence.num_output_tokens
        assert next(tokens, None) is None


HABITS: dict[str, dict[str, object]] = {
    "greedy": {},
    "random": {"temperature": 1.0},
    "truncated": {"temperature": 0.9, "top_k": 9, "top_p": 0.8, "min_p": 0.01},
    "top-p": {"temperature": 1.2, "top_p": 0.7},
    "stops": {"temperature": 1.5, "ignore_eos": False, "stop_token_ids": (3, 11, 12, 40)},
    "late stops": {
        "temperature": 1.5,
        "ignore_eos": False,
        "stop_token_ids": tuple(range(1, 30)),
        "min_tokens": 4,
    },
    "counted": {"temperature": 0.8, "presence_penalty": 0.6, "frequency_penalty": 0.5},
    "repeated": {"temperature": 0.8, "repetition_penalty": 1.3},
    "dry": {"temperature": 0.8, "dry_multiplier": 0.8},
    "biased": {"temperature": 1.0, "logit_bias": ((5, 3.0),), "bad_words_ids": ((6,), (5, 7))},
    "masked": {"temperature": 1.0, "grammar": "in turns"},
    "scored": {"temperature": 0.7, "logprobs": True, "num_top_logprobs": 2},
    "xtc": {"temperature": 1.0, "xtc_probability": 0.5, "typical_p": 0.9},
}


def some_request(name: str, habit: str, length: int, *, seed: int = 7, n: int = 1, max_tokens: int = 9):
    """A request whose prompt, for equal seeds, begins as the others' do."""
    prompt = tuple((7 * i + 5 * (seed % 3)) % (VOCAB_SIZE - 1) + 1 for i in range(length))
    params = {"temperature": 0.0, "ignore_eos": True, **HABITS[habit]}
    sampling = SamplingParams(seed=seed, max_tokens=max_tokens, **params)
    return Request(request_id=name, prompt_ids=prompt, sampling=sampling, num_choices=n)
