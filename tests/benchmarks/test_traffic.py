"""The traffic's own judgement: a scripted host that is right in everything, or wrong in one thing."""

import asyncio
import json
import random

import pytest

from benchmarks.traffic import Traffic

RIGHT = [
    {"choices": [{"index": 0, "text": "a", "finish_reason": None}]},
    {"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]},
]
PERSON = json.dumps({"name": "x", "age": 1})


class ScriptedHost:
    """Answers every stream with `events` and every whole request with `status` and `answer`."""

    def __init__(self, events=RIGHT, status=200, answer=None, endings=1):
        self.lines = [f"data: {json.dumps(event)}" for event in events] + ["data: [DONE]"] * endings
        self.status, self.answer = status, answer

    async def pieces(self, method, path, body):
        for line in self.lines:
            yield self.status, f"{line}\n\n".encode()

    async def whole(self, method, path, body):
        return self.status, self.answer


def complaints(kind, **script):
    traffic = Traffic(host=ScriptedHost(**script), model="m", max_context=64)
    asyncio.run(getattr(traffic, kind)(random.Random(0)))
    return traffic.complaints


def constrained(content, finish_reason="stop"):
    return {"choices": [{"finish_reason": finish_reason, "message": {"content": content}}]}


@pytest.mark.parametrize(
    ("kind", "script"),
    [
        ("chat", {}),
        ("long", {}),
        ("long", {"status": 503}),
        ("seeded", {}),
        ("abort", {}),
        ("constrained", {"answer": constrained(PERSON)}),
        ("constrained", {"answer": constrained("{", "length")}),
        ("constrained", {"status": 429}),
        ("bad", {"status": 400, "answer": {"error": {"message": "no"}}}),
        ("bad", {"status": 503}),
    ],
)
def test_what_is_right_is_no_complaint(kind, script):
    assert complaints(kind, **script) == []


@pytest.mark.parametrize(
    ("kind", "script", "said"),
    [
        ("long", {"endings": 0}, "0 ends"),
        ("long", {"endings": 2}, "2 ends"),
        ("long", {"events": RIGHT[:1]}, "finish reasons by choice {0: 0}"),
        ("long", {"events": [*RIGHT, RIGHT[1]]}, "finish reasons by choice {0: 2}"),
        ("long", {"events": [{"error": {"code": "step_failed"}}], "endings": 0}, "step_failed"),
        ("choices", {}, "finish reasons by choice {0: 1}"),
        ("constrained", {"answer": constrained("[]")}, "does not follow its schema"),
        ("constrained", {"status": 500}, "status 500"),
        ("bad", {"status": 200, "answer": {}}, "got 200"),
        ("bad", {"status": 500, "answer": {"error": {"message": "no"}}}, "got 500"),
        ("bad", {"status": 400, "answer": "no"}, "got 400"),
    ],
)
def test_what_is_wrong_is_a_complaint(kind, script, said):
    found = complaints(kind, **script)

    assert any(said in line for line in found), found
