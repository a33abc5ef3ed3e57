"""How long planning and committing take, without any model.

`python -m benchmarks.scheduling` shows the median of each in processor time, for running rows
that decode and for queues of waiting ones, of one caller and of many.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

from engine.cache.layout import CacheGroup, CacheLayout
from engine.cache.pool import CachePool
from engine.config import SchedulingConfig
from engine.plan import StepPlan, StepResult
from engine.request import Request, SamplingParams
from engine.scheduling.scheduler import Scheduler
from engine.scheduling.sequence import make_sequences
from engine.token_scores import NO_SCORES

BLOCK_SIZE = 16
MAX_CONTEXT = 4096
NUM_BLOCKS = 16_384
NUM_STEPS = 100
PROMPT_TOKENS = 64


class Bench:
    """A scheduler with a roomy pool, stepped without computing anything."""

    def __init__(self, **scheduling: object) -> None:
        group = CacheGroup(layers=(0,), window=None, ring_blocks=MAX_CONTEXT // BLOCK_SIZE)
        self.layout = CacheLayout(
            groups=(group,), block_size=BLOCK_SIZE, block_bytes=1, num_blocks=NUM_BLOCKS,
            max_context=MAX_CONTEXT,
        )  # fmt: skip
        config = SchedulingConfig(**{"max_step_tokens": 65_536, "max_running": 256, **scheduling})
        self.scheduler = Scheduler(config, CachePool(self.layout), frozenset())
        self.next_id = 0

    def add(
        self, number: int, *, num_callers: int = 1, max_tokens: int = 2000, is_same: bool = False
    ) -> None:
        """Queue `number` requests; their prompts differ unless they are the same."""
        for _ in range(number):
            first = 0 if is_same else self.next_id + 1
            request = Request(
                request_id=str(self.next_id),
                prompt_ids=(first, *range(PROMPT_TOKENS - 1)),
                sampling=SamplingParams(max_tokens=max_tokens, seed=0),
                caller=str(self.next_id % num_callers),
            )
            self.scheduler.add(make_sequences(request, self.next_id, [self.layout.new_tables()]))
            self.next_id += 1

    def step(self) -> tuple[float, float]:
        """One step; processor seconds of planning and of committing."""
        start = time.process_time()
        plan = self.scheduler.plan()
        planned = time.process_time()
        result = result_of(plan)
        drawn = time.process_time()
        self.scheduler.commit(plan, result)
        return planned - start, time.process_time() - drawn

    def medians_us(self) -> tuple[float, float]:
        """Of many steps, in microseconds."""
        times = [self.step() for _ in range(NUM_STEPS)]
        return tuple(1e6 * median(column) for column in zip(*times, strict=True))


def result_of(plan: StepPlan) -> StepResult:
    """One token for each chunk that draws."""
    return StepResult(
        token_ids=tuple((5,) if chunk.draw is not None else () for chunk in plan.chunks),
        logprobs=(NO_SCORES,) * len(plan.chunks),
        scores=(NO_SCORES,) * len(plan.chunks),
    )


def decoding(num_rows: int) -> Bench:
    """Rows that decode, and nobody waits."""
    bench = Bench(max_running=num_rows)
    bench.add(num_rows)
    bench.step()
    bench.step()
    return bench


def full(num_waiting: int) -> Bench:
    """The same with a queue behind, for which there is no place."""
    bench = decoding(256)
    bench.add(num_waiting, num_callers=20)
    return bench


def same(num_waiting: int) -> Bench:
    """A queue that waits for the blocks of one long prompt, which it has in common."""
    bench = Bench(max_step_tokens=256, max_chunk_tokens=1)
    bench.add(1 + num_waiting, is_same=True)
    bench.step()
    return bench


def churning(num_callers: int) -> Bench:
    """A thousand that wait, of whom in each step as many begin as end."""
    bench = Bench(max_running=16)
    bench.add(4000, num_callers=num_callers, max_tokens=1)
    return bench


CASES: dict[str, Callable[[], Bench]] = {
    "64 rows decode": lambda: decoding(64),
    "256 rows decode": lambda: decoding(256),
    "256 rows decode, 1000 wait": lambda: full(1000),
    "1000 wait for a prompt in common": lambda: same(1000),
    "4000 wait, 16 begin a step, one caller": lambda: churning(1),
    "4000 wait, 16 begin a step, 100 callers": lambda: churning(100),
}


def main() -> None:
    """Print a line for each case."""
    sys.stdout.write(f"{'':42}{'plan µs':>10}{'commit µs':>11}\n")
    for name, make in CASES.items():
        plan_us, commit_us = make().medians_us()
        sys.stdout.write(f"{name:42}{plan_us:10.0f}{commit_us:11.0f}\n")


if __name__ == "__main__":
    main()
