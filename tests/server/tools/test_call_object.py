import pytest

from server.tools.call_object import Verdict, read_call
from server.tools.feed import Feed
from server.tools.pieces import Pieces


def verdict_of(text: str, *, needs_arguments: bool = False) -> Verdict:
    feed = Feed()
    feed.add(text)
    feed.is_over = True
    reading = read_call(feed, Pieces(), frozenset({"f"}), needs_arguments=needs_arguments)
    with pytest.raises(StopIteration) as ended:
        next(reading)
    return ended.value.value


@pytest.mark.parametrize(
    ("text", "verdict"),
    [
        ('{"name": "f", "arguments": {}}', Verdict.COMPLETE),
        ('{ "name" : "f" , "id" : "x" , "arguments" : { } }', Verdict.COMPLETE),
        ('{"name": "f"}', Verdict.COMPLETE),
        ('{"name": "g", "arguments": {}}', Verdict.REFUSED),
        ('{"name": 1}', Verdict.REFUSED),
        ('{"name": "f", "arguments": [1]}', Verdict.REFUSED),
        ('{"name": "f", "arguments": "[1]"}', Verdict.REFUSED),
        ('{"name": "f", "arguments": "{}"}', Verdict.COMPLETE),
        ("{}", Verdict.REFUSED),
        ("[]", Verdict.REFUSED),
        ('{"arguments": {}', Verdict.REFUSED),
        ('{"name": "f", "arguments": {"a" 1', Verdict.BROKEN),
        ('{"name": "f", "arguments": {}', Verdict.COMPLETE),
        ('{"arguments": {}, "name": "f" ', Verdict.COMPLETE),
        ('{"name": "f", "arguments": {} x', Verdict.BROKEN),
        ('{"name": "f", "arguments": {},', Verdict.BROKEN),
        ('{"name": "f", "arguments": {"a": {}', Verdict.BROKEN),
        ('{"name": "f", "arguments": {}, "name": "f"}', Verdict.BROKEN),
    ],
)
def test_a_call_is_judged(text, verdict):
    assert verdict_of(text) is verdict


def test_arguments_may_be_demanded():
    assert verdict_of('{"name": "f"}', needs_arguments=True) is Verdict.REFUSED
