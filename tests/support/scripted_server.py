"""A server for the drills, in memory: right in everything unless a test makes it wrong in one thing."""

import itertools
import json
from collections.abc import Callable

import httpx

from server.selftest.target import Target

NUM_PROMPT = 100


class ScriptedServer:
    """Its attributes are what a test may spoil; `asked` holds the completions' bodies."""

    def __init__(self, **spoiled: object) -> None:
        self.ready = 200
        self.stats_status = 200
        self.pieces: Callable[[dict], list[str]] = lambda body: [f"t{n}" for n in range(body["max_tokens"])]
        self.ending = ["[DONE]"]
        self.cached = True
        self.queried = 100
        self.num_live: Callable[[], int] = itertools.chain([0, 1], itertools.repeat(0)).__next__
        self.entries = 3
        self.num_blocks = 3
        self.num_dropped = 0
        self.is_silent = False
        self.num_streams = 10**6
        self.refusal = (503, {"retry-after": "2"})
        self.num_places = 5
        self.asked: list[dict] = []
        vars(self).update(spoiled)

    def target(self) -> Target:
        made = Target("http://server", "key", 5.0, transport=httpx.MockTransport(self.answer))
        made.model, made.max_context = "m", 1000
        return made

    def answer(self, request: httpx.Request) -> httpx.Response:
        simple = {
            "/ready": lambda: httpx.Response(self.ready, json={}),
            "/health": lambda: httpx.Response(
                200, json={"load": {"num_running": self.num_live(), "num_waiting": 0}}
            ),
            "/v1/models": lambda: httpx.Response(200, json={"data": [{"id": "m"}]}),
            "/tokenize": lambda: httpx.Response(200, json={"max_model_len": 1000}),
            "/stats": lambda: httpx.Response(self.stats_status, json=self.stats()),
        }
        if request.url.path in simple:
            return simple[request.url.path]()
        body = json.loads(request.content)
        self.asked.append(body)
        if not body.get("stream"):
            return self.whole()
        self.num_streams -= 1
        if self.num_streams < 0:
            return httpx.Response(429, headers={"retry-after": "2"}, json={})
        text = "" if self.is_silent else self.events(body)
        return httpx.Response(200, text=text, headers={"x-request-id": "req_77"})

    def whole(self) -> httpx.Response:
        self.num_places -= 1
        if self.num_places < 0:
            status, headers = self.refusal
            return httpx.Response(status, headers=headers, json={})
        return httpx.Response(200, json={})

    def events(self, body: dict) -> str:
        is_repeated = any(other["prompt"] == body["prompt"] for other in self.asked[:-1])
        cached = NUM_PROMPT - 4 if is_repeated and self.cached else 0
        usage = {
            "prompt_tokens": NUM_PROMPT,
            "completion_tokens": body["max_tokens"],
            "prompt_tokens_details": {"cached_tokens": cached},
        }
        events = [json.dumps({"choices": [{"text": piece}]}) for piece in self.pieces(body)]
        events.append(json.dumps({"choices": [], "usage": usage}))
        return "".join(f"data: {event}\n\n" for event in [*events, *self.ending])

    def stats(self) -> dict:
        ring = {"entries": list(range(self.entries)), "max_entries": 4, "base": 16 * self.num_dropped}
        own = {"request_id": "cmpl-77-0", "num_tokens": 40, "num_blocks": self.num_blocks, "rings": [ring]}
        return {
            "sequences": [own],
            "pool": {"sequence_blocks_bound": 4},
            "prefix_cache": {"queried_tokens": self.queried},
        }
