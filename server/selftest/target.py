"""`Target`: the server under test, as any client sees it: plain HTTP, whole and streamed."""

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from pydantic import JsonValue

COMPLETIONS = "/v1/completions"
POLL_S = 0.05


class FailedError(Exception):
    """A drill found something wrong; the message says what was expected and what came."""


class RefusedError(FailedError):
    """The server has no place for a request now, and says so with 429 or 503."""


class SkippedError(Exception):
    """A drill cannot be done here; the message says why."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Heard:
    """A whole streamed answer: its text, how many events had text, usage, and when its first text came."""

    text: str
    num_pieces: int
    usage: dict[str, JsonValue]
    first_s: float


class Target:
    """A server at an address. Each call takes `timeout_s` at most."""

    def __init__(
        self, url: str, api_key: str, timeout_s: float, *, transport: httpx.BaseTransport | None = None
    ) -> None:
        """`transport` carries the requests; the network's own unless given."""
        self.timeout_s = timeout_s
        self._client = httpx.Client(
            base_url=url,
            headers={"Authorization": f"Bearer {api_key}"},
            timeout=timeout_s,
            limits=httpx.Limits(max_connections=None),
            trust_env=False,
            transport=transport,
        )
        self.model = ""
        self.max_context = 0

    def close(self) -> None:
        """Close every connection."""
        self._client.close()

    def learn(self) -> str:
        """Find out which model is served and how long its requests may be."""
        if self.get("/ready").status_code != 200:
            raise FailedError(f"/ready is not 200: {self.get('/ready').text[:200]}")
        self.model = self.body_of(self.get("/v1/models"))["data"][0]["id"]
        asked = self._client.post("/tokenize", json={"model": self.model, "prompt": "a"})
        self.max_context = int(self.body_of(asked)["max_model_len"])
        return f"{self.model}, {self.max_context} tokens at most"

    def get(self, path: str) -> httpx.Response:
        """GET a path."""
        return self._client.get(path)

    def stats(self) -> dict[str, Any]:  # Any: JSON whose fields the drills name
        """The live pool; skips where the key does not open it."""
        answer = self.get("/stats")
        if answer.status_code in (401, 403):
            raise SkippedError("the API key does not have the scope admin, which /stats needs")
        return self.body_of(answer)

    def num_running(self) -> int:
        """Sequences that run or wait, as /health tells without a key."""
        load = self.body_of(self.get("/health"))["load"]
        return int(load["num_running"]) + int(load["num_waiting"])

    def ask(self, prompt: str, **fields: JsonValue) -> httpx.Response:
        """A whole completion, whatever its status."""
        return self._client.post(COMPLETIONS, json=self._body(prompt, fields))

    @contextmanager
    def asking(self, prompt: str, **fields: JsonValue) -> Iterator[tuple[str, Iterator[str]]]:
        """A streamed completion: the number in its ids, and its events as they come; left early, it is cut off.

        An event that tells of an error is raised as FailedError.
        """
        body = {**self._body(prompt, fields), "stream": True, "stream_options": {"include_usage": True}}
        with self._client.stream("POST", COMPLETIONS, json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                kind = RefusedError if answer.status_code in (429, 503) else FailedError
                raise kind(f"status {answer.status_code}: {answer.text[:200]}")
            yield answer.headers["x-request-id"].removeprefix("req_"), _events(answer)

    def hear(self, prompt: str, **fields: JsonValue) -> Heard:
        """A streamed completion to its end, which must be [DONE]."""
        start_s, first_s, texts, last = time.monotonic(), 0.0, [], ""
        usage: dict[str, JsonValue] = {}
        with self.asking(prompt, **fields) as (_, events):
            for last in events:
                if last == "[DONE]":
                    continue
                event = json.loads(last)
                usage = event.get("usage") or usage
                if event["choices"] and event["choices"][0]["text"]:
                    first_s = first_s or time.monotonic() - start_s
                    texts.append(event["choices"][0]["text"])
        if last != "[DONE]":
            raise FailedError(f"the stream did not end with [DONE] but with {last[:100]!r}")
        return Heard(text="".join(texts), num_pieces=len(texts), usage=usage, first_s=first_s)

    def body_of(self, answer: httpx.Response) -> dict[str, Any]:  # Any: JSON, as above
        """The JSON of an answer that must be 200."""
        if answer.status_code != 200:
            raise FailedError(f"{answer.request.url.path} is {answer.status_code}: {answer.text[:200]}")
        body: dict[str, Any] = answer.json()  # Any: as above
        return body

    def _body(self, prompt: str, fields: dict[str, JsonValue]) -> dict[str, JsonValue]:
        return {"model": self.model, "prompt": prompt, "max_tokens": 16, "temperature": 0, **fields}


def _events(answer: httpx.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        if not line.startswith("data: "):
            continue
        event = line.removeprefix("data: ")
        if event != "[DONE]" and "error" in (told := json.loads(event)):
            raise FailedError(f"the stream ended with an error: {told['error']['message']}")
        yield event
