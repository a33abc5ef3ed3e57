"""The engine process as it is, but for a fault at each stage: a request whose prompt begins with the stage's
token meets it.

The faults are planted around the parts that the real program is built of, so that everything between it
and the client is as in earnest.
"""

import faulthandler
import pickle
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

import engine.__main__ as program
import engine.build
from engine.build import BuiltEngine, build_engine
from engine.channel import HEADER_BYTES
from engine.config import EngineConfig
from engine.messages import Submit, ToEngine
from engine.outbox import Outbox
from engine.plan import Runner, StepHandle, StepPlan, StepResult

STAGES = ("begin", "begin on the device", "finish", "plan", "commit", "intake", "outbox", "segfault", "stop")
POISONS = {stage: token_id for token_id, stage in enumerate(STAGES)}


class FaultyRunner:
    """A runner that fails at poisoned plans."""

    def __init__(self, inner: Runner) -> None:
        self._inner = inner

    def begin(self, plan: StepPlan) -> StepHandle:
        match stage_of(plan):
            case "begin":
                raise MemoryError("planted")
            case "begin on the device":
                raise torch.OutOfMemoryError("planted")
            case "segfault":
                faulthandler._sigsegv()
            case "stop":
                signal.raise_signal(signal.SIGSTOP)
        return self._inner.begin(plan)

    def finish(self, handle: StepHandle) -> StepResult:
        result = self._inner.finish(handle)
        if stage_of(handle.plan) == "finish":
            raise MemoryError("planted")
        return result


def stage_of(plan: StepPlan) -> str | None:
    """The stage at which `plan` is to meet its fault; None if it is not to."""
    first = (chunk.token_ids[0] for chunk in plan.chunks if chunk.start == 0)
    return next((STAGES[token_id] for token_id in first if token_id < len(STAGES)), None)


def failing(method: Callable, is_hit: Callable[..., bool]) -> Callable:
    """`method`, but with an error after its work where `is_hit` says so of the result and arguments."""

    def call(*arguments: object) -> object:
        result = method(*arguments)
        if is_hit(result, *arguments):
            raise MemoryError("planted")
        return result

    return call


def is_updates(frame: bytes) -> bool:
    """Whether a frame holds Updates, which travel as a plain tuple."""
    return type(pickle.loads(frame[HEADER_BYTES:])) is tuple


def build(config: EngineConfig, receive: Callable[[], ToEngine | None], outbox: Outbox) -> BuiltEngine:
    """As `build_engine`, with the faults planted."""
    seen = threading.Event()

    def receive_and_look() -> ToEngine | None:
        message = receive()
        if isinstance(message, Submit):
            if message.request.prompt_ids[0] == POISONS["intake"]:
                raise MemoryError("planted")
            if message.request.prompt_ids[0] == POISONS["outbox"]:
                seen.set()
        return message

    built = build_engine(config, receive_and_look, outbox)
    built.loop.runner = FaultyRunner(built.loop.runner)
    scheduler = built.scheduler
    scheduler.plan = failing(scheduler.plan, lambda plan: stage_of(plan) == "plan")
    scheduler.commit = failing(scheduler.commit, lambda _, plan, __: stage_of(plan) == "commit")
    writer = outbox._writer
    writer.offer = failing(writer.offer, lambda _, frame: seen.is_set() and is_updates(frame))
    return built


if __name__ == "__main__":
    engine.build.build_engine = build
    sys.exit(program.main(sys.argv[1:]))
