"""Mixed traffic for a soak: each kind sends what one sort of client sends, and complains of what must not be.

A complaint is a line of words. Refusals for want of room (429, 503) are counted and no complaint. It knows
nothing of the server's memory, processes or figures.
"""

import contextlib
import json
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load.answer import Lines
from benchmarks.load.connection import Host

REFUSED = (429, 503)
COMPLETIONS, CHAT = "/v1/completions", "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
BAD_BODIES: Sequence[bytes] = (
    b"",
    b"{",
    b"[]",
    b'{"model": 1}',
    b'{"prompt": "x"}',
    b'{"model": "%MODEL%", "prompt": "x", "max_tokens": -1}',
    b'{"model": "%MODEL%", "prompt": "x", "temperature": "hot"}',
    b'{"model": "%MODEL%", "prompt": [999999999]}',
    b'{"model": "%MODEL%", "prompt": "x", "no_such_field": 1}',
    b'{"model": "nobody", "prompt": "x"}',
    b'{"model": "%MODEL%", "prompt": "\\ud800"}',
    b"\xff\xfe" * 100,
)


@dataclass(slots=True, kw_only=True)
class Told:
    """What a stream said: text by choice, its endings, and the status of the answer."""

    status: int = 0
    texts: dict[int, str] = field(default_factory=dict)
    reasons: Counter[int] = field(default_factory=Counter)
    num_done: int = 0
    errors: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class Traffic:
    """Clients of one server; `counts` has the requests by kind and by what came of them."""

    host: Host
    model: str
    max_context: int
    counts: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    async def play(self, rng: random.Random) -> None:
        """One client of a kind that is drawn."""
        kinds: Mapping[str, tuple[int, Callable[[random.Random], Awaitable[None]]]] = {
            "chat": (3, self.chat),
            "long": (2, self.long),
            "abort": (3, self.abort),
            "constrained": (2, self.constrained),
            "seeded": (2, self.seeded),
            "choices": (2, self.choices),
            "bad": (2, self.bad),
        }
        name = rng.choices(list(kinds), [weight for weight, _ in kinds.values()])[0]
        self.counts[name] += 1
        await kinds[name][1](rng)

    async def probe(self) -> str:
        """What a fixed greedy request gets: always the same."""
        told = await self._stream(
            COMPLETIONS,
            {"prompt": "The ring turns and", "max_tokens": 24, "temperature": 0, "ignore_eos": True},
        )
        return told.texts.get(0, f"status {told.status}")

    async def chat(self, rng: random.Random) -> None:
        """A chat of three turns, each with all that was said before."""
        messages = [{"role": "user", "content": _words(rng, 12)}]
        for _ in range(3):
            told = await self._stream(CHAT, {"messages": messages, "max_tokens": 16, "temperature": 0})
            if told.status != 200:
                return
            messages += [{"role": "assistant", "content": told.texts.get(0, "")}]
            messages += [{"role": "user", "content": _words(rng, 8)}]

    async def long(self, rng: random.Random) -> None:
        """A prompt of several windows, and some tokens after it."""
        prompt = [
            rng.randrange(1000, 20_000)
            for _ in range(rng.randrange(self.max_context // 4, self.max_context // 2))
        ]
        body = {"prompt": prompt, "max_tokens": 32, "temperature": 0, "ignore_eos": True}
        await self._stream(COMPLETIONS, body)

    async def abort(self, rng: random.Random) -> None:
        """A client that leaves in the middle, or before anything has come."""
        body = self._body({"prompt": _words(rng, 20), "max_tokens": 400, "ignore_eos": True, "stream": True})
        pieces = self.host.pieces("POST", COMPLETIONS, body)
        async with contextlib.aclosing(pieces):
            for _ in range(rng.randrange(1, 6)):
                await anext(pieces, None)

    async def constrained(self, rng: random.Random) -> None:
        """An answer that follows a schema, if it may become long enough."""
        body = {
            "messages": [{"role": "user", "content": f"A person called {_words(rng, 1)}, as JSON."}],
            "max_tokens": 64,
            "response_format": {"type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA}},
        }
        status, answer = await self.host.whole("POST", CHAT, self._body(body))
        if self._is_refused(status) or not isinstance(answer, dict) or status != 200:
            self._expect(status in (200, *REFUSED), f"constrained: status {status}: {str(answer)[:200]}")
            return
        choice = answer["choices"][0]
        if choice["finish_reason"] == "stop":
            try:
                person = json.loads(choice["message"]["content"])
            except ValueError:
                person = None
            is_person = isinstance(person, dict) and set(person) == {"name", "age"}
            self._expect(
                is_person, f"constrained: {choice['message']['content']!r} does not follow its schema"
            )

    async def seeded(self, rng: random.Random) -> None:
        """One seed twice, in whatever company: one text."""
        body = {
            "prompt": _words(rng, 10),
            "max_tokens": 16,
            "temperature": 1.0,
            "seed": rng.randrange(1 << 30),
        }
        first, second = [await self._stream(COMPLETIONS, body) for _ in range(2)]
        if first.status == second.status == 200:
            self._expect(first.texts == second.texts, f"seeded: {first.texts} and {second.texts} of one seed")

    async def choices(self, rng: random.Random) -> None:
        """Several choices with log-probabilities and a tenant's salt."""
        body = {"prompt": _words(rng, 30), "max_tokens": 12, "n": 2, "logprobs": 2, "ignore_eos": True}
        await self._stream(COMPLETIONS, {**body, "cache_salt": f"tenant-{rng.randrange(3)}"})

    async def bad(self, rng: random.Random) -> None:
        """What is no request: refused as such, with a reason."""
        content = rng.choice(BAD_BODIES).replace(b"%MODEL%", self.model.encode())
        status, answer = await self.host.whole("POST", rng.choice((COMPLETIONS, CHAT)), content)
        has_reason = isinstance(answer, dict) and bool(answer.get("error", {}).get("message"))
        is_right = status in (400, 404, 422) and has_reason
        self._expect(
            is_right or status in REFUSED, f"bad: {content[:60]!r} got {status}: {str(answer)[:200]}"
        )

    async def _stream(self, path: str, fields: Mapping[str, object]) -> Told:
        """Read a stream to its end, and see that it ends once."""
        told, lines = Told(), Lines()
        body = self._body({**fields, "stream": True})
        async for told.status, piece in self.host.pieces("POST", path, body):
            for line in lines.add(piece):
                _take(line, told)
        if not self._is_refused(told.status):
            name = f"{path} {str(dict(fields))[:80]}"
            self._expect(told.status == 200, f"{name}: status {told.status}: {lines.rest[:200]!r}")
            self._expect(
                told.num_done == 1 and not told.errors, f"{name}: {told.num_done} ends, {told.errors}"
            )
            num_choices = int(str(fields.get("n", 1)))
            is_once = sorted(told.reasons.items()) == [(choice, 1) for choice in range(num_choices)]
            self._expect(is_once, f"{name}: finish reasons by choice {dict(told.reasons)}")
        return told

    def _body(self, fields: Mapping[str, object]) -> bytes:
        return json.dumps({"model": self.model, **fields}).encode()

    def _is_refused(self, status: int) -> bool:
        self.counts["requests"] += 1
        self.counts["refused"] += status in REFUSED
        return status in REFUSED

    def _expect(self, holds: bool, complaint: str) -> None:
        if not holds:
            self.complaints.append(complaint)


def _take(line: bytes, told: Told) -> None:
    if not line.startswith(b"data: "):
        return
    if line == b"data: [DONE]":
        told.num_done += 1
        return
    event: Any = json.loads(line[6:])  # Any: parsed JSON
    if "error" in event:
        told.errors.append(str(event["error"].get("code")))
        return
    for choice in event.get("choices") or ():
        text = choice.get("text") or (choice.get("delta") or {}).get("content") or ""
        told.texts[choice["index"]] = told.texts.get(choice["index"], "") + text
        told.reasons[choice["index"]] += choice.get("finish_reason") is not None


def _words(rng: random.Random, count: int) -> str:
    return " ".join("".join(rng.choices("aeioubdklmnrst", k=rng.randint(2, 7))) for _ in range(count))
