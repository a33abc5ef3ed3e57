"""One request and what came of it: when its pieces arrived and how many tokens the server counted.

Tokens are counted by the answer's `usage`, never by its chunks: a chunk may carry several tokens, and
a token may have no text yet. A gap is the time between two chunks that carry text.
"""

import asyncio
import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from benchmarks.load.connection import BrokenAnswerError, Host
from benchmarks.load.prompts import PromptForm
from benchmarks.load.workload import Order

Endpoint = Literal["completions", "chat"]
PATHS: Mapping[Endpoint, str] = {"completions": "/v1/completions", "chat": "/v1/chat/completions"}
IGNORE_EOS: Mapping[str, Any] = {"ignore_eos": True}  # Any: a body is JSON
DIALECTS: Mapping[str, Mapping[str, Any]] = {  # Any: a body is JSON
    "ringserve": IGNORE_EOS,
    "llamacpp": IGNORE_EOS,
    "vllm": IGNORE_EOS,
    "sglang": IGNORE_EOS,
    "openai": {},
}
OK = "ok"


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A server and how it is asked; `body` is sent besides what every request has."""

    host: Host
    model: str
    endpoint: Endpoint = "completions"
    form: PromptForm = field(default_factory=PromptForm)
    body: Mapping[str, Any] = field(default_factory=dict)  # Any: a body is JSON
    is_streamed: bool = True
    timeout_s: float = 600.0

    def request_body(self, prompt: str | list[int], max_tokens: int) -> dict[str, Any]:  # Any: JSON
        """What is sent for `prompt`."""
        asked = {"prompt": prompt} if self.endpoint == "completions" else {"messages": _messages(prompt)}
        body = {"model": self.model, **asked, "max_tokens": max_tokens, "temperature": 0, **self.body}
        if self.is_streamed:
            body |= {"stream": True, "stream_options": {"include_usage": True}}
        return body


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of one request; times are seconds on the clock of `time.perf_counter`.

    `status` is "ok", an HTTP status, or a word for what went wrong on the way. `text_times_s` are the
    arrivals of chunks with text, none if the answer was not streamed. `answer_id` is the server's name for a
    streamed answer, and `num_endings` how often that said that it is over.
    """

    due_s: float
    sent_s: float
    asked_tokens: int
    status: str = "none"
    input_tokens: int = 0
    output_tokens: int = 0
    ended_s: float = 0.0
    text_times_s: list[float] = field(default_factory=list)
    message: str = ""
    answer_id: str = ""
    num_endings: int = 0

    @property
    def is_ok(self) -> bool:
        """Whether it was answered in full."""
        return self.status == OK


async def ask(target: Target, order: Order, due_s: float | None = None) -> Outcome:
    """Send `order` and wait for its end. It was due at `due_s`, or now. Failures are outcomes."""
    prompt = target.form.prompt(order.prompt)
    body = json.dumps(target.request_body(prompt, order.output_tokens)).encode()
    now_s = time.perf_counter()
    outcome = Outcome(due_s=now_s if due_s is None else due_s, sent_s=now_s, asked_tokens=order.output_tokens)
    try:
        async with asyncio.timeout(target.timeout_s):
            await _receive(target, body, outcome)
    except TimeoutError:
        outcome.status = "timeout"
    except BrokenAnswerError as error:
        outcome.status, outcome.message = "broken", str(error)
    except OSError as error:
        outcome.status, outcome.message = "connection", str(error)
    outcome.ended_s = time.perf_counter()
    return outcome


async def count_prompt_tokens(target: Target, text: str) -> int:
    """How many tokens the server counts in the prompt `text`, by asking for one token after it."""
    body = target.request_body(text, 1) | {"stream": False}
    body.pop("stream_options", None)
    status, answer = await target.host.whole("POST", PATHS[target.endpoint], json.dumps(body).encode())
    if status != 200 or not isinstance(answer, dict):
        raise BrokenAnswerError(f"{status}: {answer}")
    return int(answer["usage"]["prompt_tokens"])


async def first_model(host: Host) -> str:
    """The id of the first model that the server lists."""
    listed: Any = await host.get_json("/v1/models")  # Any: parsed JSON
    return str(listed["data"][0]["id"])


async def _receive(target: Target, body: bytes, outcome: Outcome) -> None:
    status = 0
    lines = Lines()
    async for status, piece in target.host.pieces("POST", PATHS[target.endpoint], body):
        if status == 200 and target.is_streamed:
            now_s = time.perf_counter()
            for line in lines.add(piece):
                _read_line(line, outcome, now_s)
        else:
            lines.rest += piece
    if status != 200:
        outcome.status, outcome.message = str(status), lines.rest.decode("utf-8", "replace")[:500]
        return
    if not target.is_streamed:
        _read_usage(json.loads(lines.rest), outcome)
    if outcome.status == "none":
        outcome.status = OK if outcome.output_tokens else "no usage"


def _read_line(line: bytes, outcome: Outcome, now_s: float) -> None:
    """One line of an event stream: what has no `data:` says nothing."""
    if not line.startswith(b"data:"):
        return
    if line.endswith(b"[DONE]"):
        outcome.num_endings += 1
        return
    event = json.loads(line[5:])
    if "error" in event:
        outcome.status, outcome.message = "error event", json.dumps(event["error"])[:500]
        outcome.num_endings += 1
        return
    answer_id = event.get("id") or ""
    if outcome.answer_id not in ("", answer_id):
        outcome.status, outcome.message = "mixed answers", f"{outcome.answer_id} and {answer_id}"
    outcome.answer_id = answer_id
    if any(_has_text(choice) for choice in event.get("choices") or ()):
        outcome.text_times_s.append(now_s)
    _read_usage(event, outcome)


def _has_text(choice: Mapping[str, Any]) -> bool:  # Any: parsed JSON
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or delta.get("content") or delta.get("reasoning_content"))


def _read_usage(answer: Mapping[str, Any], outcome: Outcome) -> None:  # Any: parsed JSON
    usage = answer.get("usage")
    if usage:
        outcome.input_tokens = usage["prompt_tokens"]
        outcome.output_tokens = usage["completion_tokens"]


def _messages(prompt: str | list[int]) -> list[dict[str, str]]:
    if not isinstance(prompt, str):
        raise TypeError("a chat takes text, not ids")
    return [{"role": "user", "content": prompt}]


@dataclass(slots=True)
class Lines:
    """Bytes put together to lines; `rest` is what has not ended yet."""

    rest: bytes = b""

    def add(self, piece: bytes) -> Iterator[bytes]:
        """The lines that `piece` completes, without their ends."""
        *lines, self.rest = (self.rest + piece).split(b"\n")
        return (line.rstrip(b"\r") for line in lines)
