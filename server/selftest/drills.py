"""The drills: each tries one promise of the server against the running one, and says what it saw.

A drill returns its finding in words, raises FailedError with the reason, or SkippedError where it cannot be
done. Other callers may use the server meanwhile, but a busy one makes some findings doubtful.
"""

import os
import secrets
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
from pydantic import JsonValue

from server.selftest.target import POLL_S, FailedError, RefusedError, SkippedError, Target

STORY = "Once upon a time there was a ring"
NUM_STREAMED = 24
NUM_LONG = 2000
NUM_GROWN = 400
SETTLE_S = 20.0


def streaming(target: Target) -> str:
    """An answer comes in pieces, as many tokens as asked for, and ends once."""
    heard = target.hear(STORY, max_tokens=NUM_STREAMED, ignore_eos=True)
    if heard.num_pieces < 2:
        raise FailedError(f"{NUM_STREAMED} tokens came in {heard.num_pieces} pieces")
    if heard.usage.get("completion_tokens") != NUM_STREAMED:
        raise FailedError(f"asked for {NUM_STREAMED} tokens, usage says {heard.usage}")
    return (
        f"{NUM_STREAMED} tokens in {heard.num_pieces} pieces, the first after {1000 * heard.first_s:.0f} ms"
    )


def seeds(target: Target) -> str:
    """The same seed gives the same text, alone and in company."""
    ask: dict[str, JsonValue] = {
        "max_tokens": NUM_STREAMED, "temperature": 1.0, "seed": 7, "ignore_eos": True,
    }  # fmt: skip
    alone = target.hear(STORY, **ask).text
    texts = [alone, *_heard_together(target, 4, ask)]
    if len(texts) < 2:
        raise SkippedError("the server has no place for even one of four requests at once")
    if len(set(texts)) > 1:
        raise FailedError(f"seed 7 gave {len(set(texts))} different texts in {len(texts)} answers")
    return f"{len(texts)} answers with seed 7 are the same text"


def prefix_hit(target: Target) -> str:
    """A prompt that was computed before is not computed again."""
    prompt = f"{secrets.token_hex(8)} " + "the ring turns and the window slides along, " * 24
    first, second = (target.hear(prompt, max_tokens=4) for _ in range(2))
    details = second.usage.get("prompt_tokens_details")
    num_cached = details.get("cached_tokens") if isinstance(details, dict) else None
    if not num_cached:
        if target.stats()["prefix_cache"]["queried_tokens"] == 0:
            raise SkippedError("the prefix cache is off")
        raise FailedError(f"asked twice, the second time usage says {second.usage}")
    times = f"{1000 * first.first_s:.0f} ms, then {1000 * second.first_s:.0f} ms to the first token"
    return f"{num_cached} of {second.usage['prompt_tokens']} prompt tokens cached; {times}"


def disconnect(target: Target) -> str:
    """A request whose client has gone ends in the engine too."""
    before = target.num_running()
    num_tokens = min(NUM_LONG, target.max_context // 2)
    with target.asking(STORY, max_tokens=num_tokens, ignore_eos=True) as (_, events):
        _await_first(events)
        during = target.num_running()
    if during <= before:
        raise FailedError(f"{during} sequences were live during the request, {before} before it")
    took_s = _settle(target, before)
    return f"gone from the engine {1000 * took_s:.0f} ms after its client"


def bound(target: Target) -> str:
    """A sequence that grows holds no more blocks than its bound."""
    view = target.stats()
    num_tokens = min(NUM_GROWN, target.max_context // 2)
    most, seen, has_turned = 0, 0, False
    with target.asking(STORY, max_tokens=num_tokens, ignore_eos=True) as (number, events):
        for count, _ in enumerate(events):
            if count % 20:
                continue
            view = target.stats()
            for own in (each for each in view["sequences"] if number in each["request_id"]):
                seen, most = max(seen, own["num_tokens"]), max(most, own["num_blocks"])
                has_turned |= any(ring["base"] > 0 for ring in own["rings"])
                _refuse_excess(own)
    if not seen:
        raise SkippedError("the sequence was too fast to be seen in /stats")
    limit = view["pool"]["sequence_blocks_bound"]
    if most > limit:
        raise FailedError(f"a sequence of {seen} tokens held {most} blocks; the bound is {limit}")
    turned = "its ring turned" if has_turned else "no ring turned yet: full attention, or a longer window"
    return f"at {seen} tokens it held {most} blocks at most; the bound is {limit}; {turned}"


def overload(target: Target, num_requests: int) -> str:
    """Of many requests at once each is answered or told to come back, and afterwards all is well."""
    before = target.num_running()
    ask = {"max_tokens": 32, "ignore_eos": True}
    with ThreadPoolExecutor(num_requests) as crowd:
        answers = list(crowd.map(lambda n: target.ask(f"{n} {STORY}", **ask), range(num_requests)))
    for answer in answers:
        if answer.status_code not in (200, 429, 503):
            raise FailedError(f"status {answer.status_code}: {answer.text[:200]}")
        if answer.status_code != 200 and not answer.headers.get("retry-after", "").isdigit():
            raise FailedError(f"a {answer.status_code} without Retry-After")
    _settle(target, before)
    streaming(target)
    counts = Counter(answer.status_code for answer in answers)
    told = ", ".join(f"{count} × {status}" for status, count in sorted(counts.items()))
    return f"{num_requests} at once: {told}; afterwards all is well"


def drain(target: Target, pid: int | None) -> str:
    """Told to stop, the server finishes what runs and takes nothing new. It ends the server."""
    if pid is None:
        raise SkippedError("it ends the server; give the server's process id as --drain-pid")
    with target.asking(STORY, max_tokens=64, ignore_eos=True) as (_, events):
        _await_first(events)
        os.kill(pid, signal.SIGTERM)
        refused = _first_refusal(target)
        rest = list(events)
    if not rest or rest[-1] != "[DONE]":
        raise FailedError(f"the running stream ended with {rest[-1:]}")
    return f"the running stream was finished, a new request got {refused}"


def drills(num_requests: int, drain_pid: int | None) -> dict[str, Callable[[Target], str]]:
    """All of them by name, in the order in which they are done; the one that ends the server last."""
    return {
        "ready": Target.learn,
        "streaming": streaming,
        "seeds": seeds,
        "prefix hit": prefix_hit,
        "disconnect": disconnect,
        "bound": bound,
        "overload": lambda target: overload(target, num_requests),
        "drain": lambda target: drain(target, drain_pid),
    }


def _heard_together(target: Target, num_requests: int, ask: dict[str, JsonValue]) -> list[str]:
    """The texts of those of several equal requests at once that the server had a place for."""
    with ThreadPoolExecutor(num_requests) as company:
        pending = [company.submit(target.hear, STORY, **ask) for _ in range(num_requests)]
    return [each.result().text for each in pending if not isinstance(each.exception(), RefusedError)]


def _await_first(events: Iterator[str]) -> None:
    if next(events, None) is None:
        raise FailedError("the stream ended without an event")


def _settle(target: Target, expected: int) -> float:
    """Wait until no more than `expected` sequences are live; how long it took."""
    start_s = time.monotonic()
    while (left := target.num_running()) > expected:
        if time.monotonic() - start_s > SETTLE_S:
            raise FailedError(f"{left} sequences still live after {SETTLE_S:.0f} s, {expected} before")
        time.sleep(POLL_S)
    return time.monotonic() - start_s


def _refuse_excess(sequence: dict[str, Any]) -> None:  # Any: JSON of /stats
    for ring in sequence["rings"]:
        if len(ring["entries"]) > ring["max_entries"]:
            raise FailedError(f"a ring of {ring['max_entries']} entries holds {len(ring['entries'])} blocks")


def _first_refusal(target: Target) -> str:
    """What a new request is told once the server drains; it may not have begun to at the first try."""
    end_s = time.monotonic() + SETTLE_S
    while time.monotonic() < end_s:
        try:
            answer = target.ask(STORY, max_tokens=1)
        except httpx.TransportError:
            return "no connection"
        if answer.status_code == 503:
            return "503"
        time.sleep(POLL_S)
    raise FailedError("new requests are still taken after SIGTERM")
