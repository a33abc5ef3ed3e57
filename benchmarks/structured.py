"""What constrained answers cost: time per token beside free ones, and the compiling of their grammars.

    python -m benchmarks.structured MODEL.gguf

Prints, for batches of 1 and 8 sequences, the median over rounds of the milliseconds per step of free
rows, of rows that follow a JSON schema and of rows of which one in two does, taken in turns; then the times to
compile a set of schemas, the first time and again. Decoding alone is timed, from the third token on.
"""

import argparse
import queue
import statistics
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from engine.build import BuiltEngine, build_engine
from engine.config import EngineConfig, ModelConfig
from engine.messages import Submit, ToEngine, ToServer, Updates
from engine.request import Request, SamplingParams
from engine.structured.library import Library
from engine.text.tokenizer import Tokenizer
from server.translate.constraint import json_rule, to_grammar

PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 24},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": "string", "format": "email"},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 3},
    },
    "required": ["name", "age", "tags"],
    "additionalProperties": False,
}
ENDLESS = to_grammar(json_rule({"type": "array", "minItems": 1000, "items": PERSON}))
PROMPT = "A list of people as JSON:"
WARM_UP_TOKENS = 3


class Timed:
    """The server's end of an engine that runs in this thread: feeds messages, and notes when steps end."""

    def __init__(self) -> None:
        self.inbox: queue.SimpleQueue[ToEngine | None] = queue.SimpleQueue()
        self.ends_s: list[float] = []
        self._num_open = 0

    def submit(self, *requests: Request) -> None:
        self.ends_s = []
        for number, request in enumerate(requests):
            self._num_open += 1
            self.inbox.put(Submit(request=request, first_sequence_id=256 * number))

    def put(self, message: ToServer) -> None:
        """Take what the engine says; as an outbox."""
        if isinstance(message, Updates):
            self.ends_s.append(time.perf_counter())
            self._num_open -= sum(reason is not None for reason in message.finish_reasons)
            assert not message.failures, message.failures

    @property
    def has_ended(self) -> bool:
        return not self._num_open


def run(built: BuiltEngine, timed: Timed, requests: list[Request]) -> float:
    """Milliseconds per step, the median."""
    timed.submit(*requests)
    scheduler, runner = built.scheduler, built.loop.runner
    while not timed.has_ended:
        for work in built.intake.take(0):
            scheduler.add(work)
        plan = scheduler.plan()
        if plan.chunks:
            timed.put(scheduler.commit(plan, runner.finish(runner.begin(plan))))
    ends_s = timed.ends_s[WARM_UP_TOKENS:]
    return 1000 * statistics.median(after - before for before, after in pairwise(ends_s))


def requests_of(grammars: list[str], prompt_ids: list[int], num_tokens: int) -> list[Request]:
    return [
        Request(
            request_id=str(number),
            prompt_ids=tuple(prompt_ids),
            sampling=SamplingParams(
                max_tokens=num_tokens, seed=number, temperature=1.0, ignore_eos=True, grammar=grammar
            ),
        )
        for number, grammar in enumerate(grammars)
    ]


def schemas() -> Iterator[dict[str, object]]:
    """Shapes as users bring them: flat, nested, many properties, enums, patterns, unions, recursion."""
    kinds = [
        {"type": "string"},
        {"type": "integer", "minimum": -5, "maximum": 1000},
        {"type": "number", "exclusiveMinimum": 0},
        {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
        {"type": "string", "format": "date-time"},
        {"type": "string", "maxLength": 200},
        {"enum": [f"value {number}" for number in range(50)]},
        {"anyOf": [{"type": "null"}, {"type": "boolean"}, {"const": "x"}]},
    ]
    for width in (1, 5, 20, 60):
        for first in range(len(kinds)):
            names = [f"property_{number}" for number in range(width)]
            properties = {name: kinds[(first + index) % len(kinds)] for index, name in enumerate(names)}
            flat = {
                "type": "object",
                "properties": properties,
                "required": names,
                "additionalProperties": False,
            }
            yield flat
            yield {
                "type": "array",
                "items": {"type": "object", "properties": {"inner": flat}},
                "maxItems": 10,
            }
            node = {
                "allOf": [flat],
                "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
            }
            yield {"$defs": {"node": node if width == 1 else flat}, "$ref": "#/$defs/node"}


def print_compile_times(library: Library) -> None:
    first_ms, again_ms = [], []
    for schema in schemas():
        grammar = to_grammar(json_rule(schema))
        began_s = time.perf_counter()
        matcher = library.compile(grammar)
        first_ms.append(1000 * (time.perf_counter() - began_s))
        began_s = time.perf_counter()
        matcher.deep_copy()
        again_ms.append(1000 * (time.perf_counter() - began_s))
    for name, times in (("first", first_ms), ("again", again_ms)):
        cuts = statistics.quantiles(times, n=100)
        print(f"compile {name}: schemas {len(times)}  p50 {cuts[49]:.3f} ms  p99 {cuts[98]:.3f} ms")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("--tokens", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batches", type=int, nargs="*", default=[1, 8])
    flags = parser.parse_args()
    tokenizer = Tokenizer.load(flags.model)
    vocabulary = tokenizer.vocabulary()
    timed = Timed()
    config = EngineConfig(model=ModelConfig(path=str(flags.model), model_id="m", device="cpu"))
    built = build_engine(config, timed.inbox.get, timed)
    built.intake.start()
    timed.inbox.put(vocabulary)
    prompt_ids = tokenizer.encode(PROMPT)
    for batch in flags.batches:
        mixed = [ENDLESS if number % 2 else "" for number in range(batch)]
        kinds = {"free": [""] * batch, "constrained": [ENDLESS] * batch, "mixed": mixed}
        found: dict[str, list[float]] = {name: [] for name in kinds}
        for _ in range(flags.rounds):
            for name, grammars in kinds.items():
                found[name].append(run(built, timed, requests_of(grammars, prompt_ids, flags.tokens)))
        medians = {name: statistics.median(times) for name, times in found.items()}
        told = "  ".join(f"{name} {ms:.2f} ms (x {ms / medians['free']:.3f})" for name, ms in medians.items())
        print(f"batch {batch}: {told}")
    began_s = time.perf_counter()
    library = Library.open(
        vocabulary, vocab_size=built.card.vocab_size, eos_ids=built.card.eos_ids, num_threads=2
    )
    print(f"vocabulary of {built.card.vocab_size}: {1000 * (time.perf_counter() - began_s):.0f} ms")
    print_compile_times(library)
    timed.inbox.put(None)


if __name__ == "__main__":
    main()
