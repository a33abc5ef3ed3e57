"""Where a decode step's time goes: plan, begin, finish, commit and message, and native kernels within them.

    python benchmarks/steps.py MODEL.gguf [--rows 1 8 16 64] [--steps 100] [--sampling greedy random ...]

Builds the engine as its process does, fills it with that many sequences, and runs decode steps one
after the other. Each figure is the median over the steps in microseconds. `kernels` is the time in
the shared library, which the other columns leave out; `python` is the sum of all the others. Without
MODEL a lookup table stands for the model, and `kernels` are those of sampling alone.
"""

import argparse
import gc
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

import torch

from engine.build import build_engine
from engine.cache.layout import CacheDemand, CacheLayout, plan_layout
from engine.cache.pool import CachePool
from engine.cache.store import CacheStore
from engine.channel import to_frame
from engine.config import CacheConfig, EngineConfig, ModelConfig, SchedulingConfig
from engine.execution.runner import ModelRunner
from engine.model_spec import ModelSpec, RopeSpec
from engine.plan import Runner
from engine.request import Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import make_sequences

PARTS = ("plan", "begin", "finish", "commit", "message")
VOCAB_SIZE = 49_152
PROMPT_TOKENS, WARM_UP_STEPS = 64, 10
HABITS: dict[str, dict[str, object]] = {
    "greedy": {"temperature": 0.0},
    "random": {},
    "top-p": {"temperature": 0.7, "top_p": 0.9},
    "logprobs": {"temperature": 0.0, "logprobs": True, "num_top_logprobs": 20},
}


@dataclass(slots=True)
class Stopwatch:
    """Seconds spent in the shared library, counted while its functions are wrapped."""

    native_s: float = 0.0

    def wrap(self, library: object) -> None:
        """Time every function of `library` that computes."""
        for name in (
            "rs_run_step",
            "rs_run_step_and_draw",
            "rs_linear_forward",
            "rs_draw_rows",
            "rs_score_rows",
        ):
            if hasattr(library, name):
                setattr(library, name, self._timed(getattr(library, name)))

    def _timed(self, function: Callable[..., object]) -> Callable[..., object]:
        def timed(*arguments: object) -> object:
            start = time.perf_counter()
            result = function(*arguments)
            self.native_s += time.perf_counter() - start
            return result

        return timed


@dataclass(slots=True, kw_only=True)
class Rig:
    """A scheduler, a runner and the cache layout between them."""

    scheduler: Scheduler
    runner: Runner
    layout: CacheLayout
    watch: Stopwatch = field(default_factory=Stopwatch)


class LookupModel:
    """Stands for a model: a hidden state is a token id, its logits are a row of noise."""

    def __init__(self) -> None:
        self._logits = 3 * torch.randn(256, VOCAB_SIZE, generator=torch.Generator().manual_seed(0))

    def __call__(self, batch: object, _: object) -> torch.Tensor:
        return batch.token_ids[batch.wanted_rows, None].float()  # type: ignore[attr-defined] # a Batch

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self._logits[: len(hidden)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("model", nargs="?", help="a .gguf file or a folder; left out: a lookup table")
    parser.add_argument("--rows", type=int, nargs="+", default=[1, 8, 16, 64])
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--sampling", nargs="+", choices=HABITS, default=list(HABITS))
    flags = parser.parse_args()
    torch.set_num_threads(1)
    print(f"{platform.machine()}, torch {torch.__version__}, model {flags.model or 'lookup table'}\n")
    names = (*PARTS, "python", "kernels")
    print(f"| {'µs per step':10} | rows | " + " | ".join(f"{name:>8}" for name in names) + " |")
    print(f"|{'-' * 12}|{'-' * 6}|" + "|".join("-" * 10 for _ in names) + "|")
    for habit in flags.sampling:
        for num_rows in flags.rows:
            figures = run(make_rig(flags.model), num_rows, flags.steps, HABITS[habit])
            print(
                f"| {habit:10} | {num_rows:4} | "
                + " | ".join(f"{figures[name]:8.0f}" for name in names)
                + " |"
            )


def make_rig(model: str | None) -> Rig:
    """The parts as the engine process wires them, or around a lookup table."""
    if model is None:
        return make_hollow_rig()
    config = EngineConfig(model=ModelConfig(path=model, model_id="model"), cache=CacheConfig())

    class Nowhere:
        def put(self, message: object) -> None:
            del message

    built = build_engine(config, lambda: None, Nowhere())  # type: ignore[arg-type] # all that is used of one
    rig = Rig(scheduler=built.scheduler, runner=built.loop.runner, layout=built.pool.layout)
    model_of = getattr(built.loop.runner, "_model", None)
    rig.watch.wrap(getattr(getattr(model_of, "_kernels", None), "library", object()))
    return rig


def make_hollow_rig() -> Rig:
    """A rig whose model costs nothing; its cache is of one small layer."""
    spec = ModelSpec(
        family="llama",
        num_layers=1,
        num_heads=1,
        num_kv_heads=1,
        head_size=8,
        model_size=8,
        ffn_size=8,
        vocab_size=VOCAB_SIZE,
        norm_eps=1e-5,
        rope=RopeSpec(theta=10_000.0),
        max_context=8192,
        layer_windows=(None,),
        eos_ids=(),
        has_tied_head=True,
    )
    demand = CacheDemand(
        block_size=16, cache_bytes=8 << 20, max_chunk_tokens=256, element_bytes=2, max_context=None
    )
    layout = plan_layout(spec, demand)
    device = torch.device("cpu")
    store = CacheStore.allocate(layout, spec, device=device, dtype=torch.bfloat16)
    scheduler = Scheduler(SchedulingConfig(), CachePool(layout), frozenset())
    return Rig(scheduler=scheduler, runner=ModelRunner(LookupModel(), store, layout), layout=layout)


def run(rig: Rig, num_rows: int, num_steps: int, habit: dict[str, object]) -> dict[str, float]:
    """Medians of the parts of `num_steps` decode steps, in microseconds."""
    sampling = {"seed": 1, "max_tokens": num_steps + 200, "ignore_eos": True, **habit}
    for row in range(num_rows):
        request = Request(
            request_id=str(row),
            prompt_ids=tuple(range(row + 1, row + 1 + PROMPT_TOKENS)),
            sampling=SamplingParams(**sampling),  # type: ignore[arg-type] # of many types
        )
        rig.scheduler.add(make_sequences(request, row * 256, [rig.layout.new_tables()]))
    num_prompt_steps = -(-num_rows * PROMPT_TOKENS // SchedulingConfig().max_step_tokens)
    for _ in range(num_prompt_steps + WARM_UP_STEPS):
        step(rig)
    gc.collect()
    gc.freeze()
    times = [step(rig) for _ in range(num_steps)]
    return {name: 1e6 * statistics.median(own[name] for own in times) for name in times[0]}


def step(rig: Rig) -> dict[str, float]:
    """One step as the loop runs it, in seconds by part."""
    figures: dict[str, float] = {}
    rig.watch.native_s = 0.0
    start = time.perf_counter()

    def lap(part: str) -> None:
        nonlocal start
        now = time.perf_counter()
        figures[part] = now - start
        start = time.perf_counter()

    plan = rig.scheduler.plan()
    lap("plan")
    handle = rig.runner.begin(plan)
    lap("begin")
    result = rig.runner.finish(handle)
    lap("finish")
    updates = rig.scheduler.commit(plan, result)
    lap("commit")
    to_frame(updates)
    lap("message")
    figures["begin"] -= rig.watch.native_s
    figures["python"] = sum(figures.values())
    figures["kernels"] = rig.watch.native_s
    return figures


if __name__ == "__main__":
    main()
