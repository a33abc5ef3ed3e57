"""A stand-in for the engine process: a real program behind the real channel, with scripted behaviour.

It answers a prompt with the prompt's own tokens, one step each, and then ends it; tokens from `EXIT`
on make it misbehave instead. It writes every message it gets to standard error. What it does besides
comes as flags:

    --loading N           send N Loading messages before Ready
    --never-ready         send those and then nothing more
    --fail MESSAGE        send Failed with a ConfigError before Ready, and exit with status 2
    --dies RECORD N       exit with status 9 before Ready, N times in all; the file RECORD keeps count
    --stay                live on after the end of the channel, so that only a kill helps
    --mute                send no Pulse
    --ignore-drain        do not answer Drain
    --counts              tell counters in each Pulse, with one preemption more each time
    --ignore-inspect      do not answer Inspect
    --say LINE            write LINE to standard error at the start; may be repeated
"""

import argparse
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from engine.channel import BlockingEnd
from engine.errors import ConfigError, RequestError, StepError
from engine.messages import (
    Abort,
    Accepted,
    CacheCleared,
    ClearCache,
    Configure,
    Drain,
    Drained,
    Failed,
    Finish,
    Inspect,
    Inspected,
    Load,
    Loading,
    ModelCard,
    Pulse,
    Ready,
    Refused,
    Submit,
    Updates,
    Vocabulary,
)
from engine.request import FinishReason, Request
from engine.stats import EngineCounters, EngineStats, EngineView, PoolGauges

EXIT, KILL, FREEZE, HOLD, REFUSE, FAIL, GARBAGE, HANG_UP, SILENCE, IGNORE = range(300, 310)
"""Exit with status 7; die of SIGKILL; stop by SIGSTOP; generate what comes before and then nothing; refuse;
fail that choice with a StepError; write noise to the channel; close the channel and live on; send no Pulse
any more; do not even accept."""

INSPECTED = EngineView(stats=EngineStats(counters=EngineCounters(num_preempted=1000)))
MAX_CONTEXT = 100
PULSE_S = 0.05


class ScriptedEngine:
    """One run of the stand-in."""

    def __init__(self, end: BlockingEnd, sock: socket.socket, flags: argparse.Namespace) -> None:
        self.end = end
        self.sock = sock
        self.flags = flags
        self.num_steps = 0
        self.num_held = 0
        self.num_pulses = 0

    def start(self) -> None:
        """From Configure to Ready, or to the scripted end."""
        configure = self.end.receive()
        assert isinstance(configure, Configure)
        for number in range(self.flags.loading):
            self.end.send(Loading(stage="weights", done=number + 1, total=self.flags.loading))
        if self.flags.dies and count_run(Path(self.flags.dies[0])) <= int(self.flags.dies[1]):
            sys.exit(9)
        if self.flags.fail:
            self.end.send(Failed(error=ConfigError(self.flags.fail)))
            sys.exit(2)
        if self.flags.never_ready:
            time.sleep(600)
        self.end.send(Ready(card=card(configure)))

    def serve(self) -> None:
        """Answer messages until the channel ends, with a Pulse in every pause."""
        while True:
            readable, _, _ = select.select([self.sock], [], [], PULSE_S)
            if not readable:
                if not self.flags.mute:
                    load = Load(num_steps=self.num_steps, num_running=self.num_held)
                    self.end.send(Pulse(load=load, stats=self.stats()))
                continue
            message = self.end.receive()
            if message is None:
                return
            self.answer(message)

    def stats(self) -> EngineStats | None:
        if not self.flags.counts:
            return None
        self.num_pulses += 1
        counters = EngineCounters(num_preempted=self.num_pulses)
        return EngineStats(counters=counters, pool=PoolGauges(num_blocks=1))

    def answer(self, message: object) -> None:
        match message:
            case Submit(request=request, first_sequence_id=first):
                log(f"Submit {request.request_id}")
                self.take(request, first)
            case Vocabulary():
                log("Vocabulary")
            case Abort(request_id=request_id):
                log(f"Abort {request_id}")
            case Finish(request_id=request_id, choice=choice):
                log(f"Finish {request_id} {choice}")
            case ClearCache(order_id=order_id):
                self.end.send(CacheCleared(order_id=order_id, num_blocks=self.num_steps))
            case Inspect(number=number):
                if not self.flags.ignore_inspect:
                    self.end.send(Inspected(number=number, view=INSPECTED))
            case Drain():
                log("Drain")
                if not self.flags.ignore_drain and not self.num_held:
                    self.end.send(Drained())

    def take(self, request: Request, first: int) -> None:
        if REFUSE in request.prompt_ids:
            self.end.send(
                Refused(request_id=request.request_id, error=RequestError("refused by script", "n"))
            )
            return
        if IGNORE in request.prompt_ids:
            return
        self.end.send(Accepted(request_id=request.request_id))
        sequence_ids = tuple(range(first, first + request.num_choices))
        output = request.prompt_ids[: request.sampling.max_tokens]
        for token_id in output:
            if token_id >= EXIT:
                self.misbehave(token_id, first)
                return
            self.step(request, sequence_ids, token_id)
        reason = FinishReason.LENGTH if len(output) == request.sampling.max_tokens else FinishReason.STOP
        nothing = (0,) * len(sequence_ids)
        self.end.send(
            Updates(
                sequence_ids=sequence_ids, num_tokens=nothing, finish_reasons=(reason,) * len(sequence_ids)
            )
        )

    def step(self, request: Request, sequence_ids: tuple[int, ...], token_id: int) -> None:
        self.num_steps += 1
        num_rows = len(sequence_ids)
        self.end.send(
            Updates(
                sequence_ids=sequence_ids,
                num_tokens=(1,) * num_rows,
                token_ids=(token_id,) * num_rows,
                logprobs=(-0.5,) * num_rows if request.sampling.logprobs else (),
                ranks=(1,) * num_rows if request.sampling.logprobs else (),
                finish_reasons=(None,) * num_rows,
                load=Load(num_steps=self.num_steps),
            )
        )

    def misbehave(self, token_id: int, sequence_id: int) -> None:
        match token_id:
            case _ if token_id == EXIT:
                os._exit(7)
            case _ if token_id == KILL:
                os.kill(os.getpid(), signal.SIGKILL)
            case _ if token_id == FREEZE:
                os.kill(os.getpid(), signal.SIGSTOP)
            case _ if token_id == HOLD:
                self.num_held += 1
            case _ if token_id == FAIL:
                self.end.send(Updates(failures=((sequence_id, StepError("failed by script")),)))
            case _ if token_id == GARBAGE:
                self.sock.sendall(b"\xff" * 64)
            case _ if token_id == HANG_UP:
                self.end.close()
                time.sleep(600)
            case _ if token_id == SILENCE:
                self.flags.mute = True


def card(configure: Configure) -> ModelCard:
    return ModelCard(
        model_id=configure.config.model.model_id,
        family="scripted",
        device="cpu",
        dtype="float32",
        vocab_size=512,
        eos_ids=(257,),
        max_context=MAX_CONTEXT,
        window=None,
        weight_bytes=0,
        block_size=16,
        block_bytes=1,
        num_blocks=1,
    )


def count_run(record: Path) -> int:
    """How many runs there were, this one included."""
    runs = len(record.read_text()) + 1 if record.exists() else 1
    record.write_text("x" * runs)
    return runs


def log(line: str) -> None:
    os.write(2, f"{line}\n".encode())


def main() -> None:
    for ignored in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ignored, signal.SIG_IGN)
    parser = argparse.ArgumentParser()
    parser.add_argument("--loading", type=int, default=0)
    parser.add_argument("--fail")
    parser.add_argument("--dies", nargs=2)
    parser.add_argument("--say", action="append", default=[])
    for flag in ("--never-ready", "--stay", "--mute", "--ignore-drain", "--ignore-inspect", "--counts"):
        parser.add_argument(flag, action="store_true")
    parser.add_argument("descriptor", type=int)
    flags = parser.parse_args()
    for line in flags.say:
        log(line)
    sock = socket.socket(fileno=flags.descriptor)
    engine = ScriptedEngine(BlockingEnd(sock), sock, flags)
    engine.start()
    engine.serve()
    while flags.stay:
        time.sleep(600)


if __name__ == "__main__":
    main()
