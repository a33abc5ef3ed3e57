"""Calls as plain JSON objects, which begin an answer or a line of it; several may follow one another.

    {"name": "get_weather", "parameters": {"city": "Paris"}}; {"name": "get_time", "parameters": {}}

A list of them is read too. `read_llama3` also reads them behind `<|python_tag|>`, as Llama 3.1 and
later write them; the Python code that may stand there instead is text. `read_json` is for every other
model: it reads what the preamble of ours asks for.
"""

from server.tools.call_object import Verdict, read_call
from server.tools.feed import BLANKS, Feed, Reading
from server.tools.pieces import Pieces

PYTHON_TAG = "<|python_tag|>"
SEPARATORS = BLANKS + ",;"


def read_llama3(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    """Read a whole answer; what is no call of one of `names` is said as it stands."""
    yield from _read(feed, pieces, names, PYTHON_TAG)


def read_json(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    """The same without a marker."""
    yield from _read(feed, pieces, names, "")


def _read(feed: Feed, pieces: Pieces, names: frozenset[str], marker: str) -> Reading[None]:
    begins_line = True
    while character := (yield from feed.peek()):
        feed.mark()
        is_marked = bool(marker) and character == marker[0] and (yield from feed.literal(marker))
        if is_marked:
            yield from feed.skip()
        if is_marked or (begins_line and character in "{["):
            begins_line = yield from _read_calls(feed, pieces, names)
            continue
        feed.advance()
        pieces.say(character)
        begins_line = character == "\n" or (begins_line and character in BLANKS)


def _read_calls(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[bool]:
    """Read calls up to what is none, which is said if it stands where one must; whether a line may begin."""
    is_list = yield from feed.literal("[")
    while True:
        if is_list:
            yield from feed.skip()
        verdict = yield from read_call(feed, pieces, names, needs_arguments=True)
        if verdict is Verdict.BROKEN:
            pieces.break_call()
            return False
        if verdict is Verdict.REFUSED:
            pieces.say(feed.since_mark())
            return False
        feed.mark()
        yield from feed.skip(SEPARATORS)
        if (yield from feed.peek()) == "{":
            continue
        feed.go_back()
        if is_list:
            yield from feed.skip()
            if not (yield from feed.literal("]")):
                feed.go_back()
        return True
