"""Calls as Mistral's models write them: a list behind a marker, or since version 11 one by one.

    [TOOL_CALLS] [{"name": "get_weather", "arguments": {"city": "Paris"}}]
    [TOOL_CALLS]get_weather[ARGS]{"city": "Paris"}[TOOL_CALLS]get_time[ARGS]{}

Version 11 puts `[CALL_ID]` and an id between name and arguments. A list closed too early, or never, has
the calls that are in it.
Source: the tokenizers' own description, Mistral's `mistral-common`, versions 3 to 13.
"""

from server.tools.call_object import Verdict, read_call
from server.tools.feed import Feed, Reading
from server.tools.json_text import read_value
from server.tools.pieces import Pieces

OPENING, ARGUMENTS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MAX_ID_CHARS = 64
NAME_STOPS = "[{"


def read_mistral(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    """Read a whole answer; what is no call of one of `names` is said as it stands."""
    while True:
        text, is_marked = yield from feed.until(OPENING)
        pieces.say(text)
        feed.mark()
        if not is_marked:
            if not text and feed.is_over:
                return
            continue
        yield from feed.skip()
        is_list = yield from feed.literal("[")
        if is_list:
            yield from _read_list(feed, pieces, names)
        else:
            yield from _read_named(feed, pieces, names)


def _read_list(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    before = OPENING
    while True:
        yield from feed.skip()
        verdict = yield from read_call(feed, pieces, names, needs_arguments=False)
        if verdict is not Verdict.COMPLETE:
            if verdict is Verdict.REFUSED:
                pieces.say(before + feed.since_mark())
            else:
                pieces.break_call()
            feed.mark()
            return
        feed.mark()
        before = ""
        yield from feed.skip()
        if not (yield from feed.literal(",")):
            break
    if not (yield from feed.literal("]")):
        feed.go_back()


def _read_named(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    name = ""
    longest = max(map(len, names), default=0)
    while len(name) <= longest:
        character = yield from feed.peek()
        if not character or character in NAME_STOPS:
            break
        name += character
        feed.advance()
    name = name.rstrip()
    if name in names:
        if (yield from feed.literal(CALL_ID)):
            yield from _skip_id(feed)
        yield from feed.literal(ARGUMENTS)
        yield from feed.skip()
        if (yield from feed.peek()) == "{":
            pieces.begin_call(name)
            if not (yield from read_value(feed, pieces.argue, is_told=True)):
                pieces.break_call()
            return
    pieces.say(OPENING + feed.since_mark())
    feed.mark()


def _skip_id(feed: Feed) -> Reading[None]:
    for _ in range(MAX_ID_CHARS):
        character = yield from feed.peek()
        if not character or character in NAME_STOPS:
            return
        feed.advance()
