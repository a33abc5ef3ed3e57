"""Calls as Hermes and Qwen models write them, each an object between two markers:

    <tool_call>
    {"name": "get_weather", "arguments": {"city": "Paris"}}
    </tool_call>

Source: the chat templates of the Hermes 2 Pro and Qwen 2.5 checkpoints.
"""

from server.tools.call_object import Verdict, read_call
from server.tools.feed import Feed, Reading
from server.tools.pieces import Pieces

OPENING, CLOSING = "<tool_call>", "</tool_call>"


def read_hermes(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    """Read a whole answer; what is no call of one of `names` is said as it stands."""
    while True:
        text, is_marked = yield from feed.until(OPENING)
        pieces.say(text)
        feed.mark()
        if is_marked:
            yield from _read_one(feed, pieces, names)
        elif not text and feed.is_over:
            return


def _read_one(feed: Feed, pieces: Pieces, names: frozenset[str]) -> Reading[None]:
    yield from feed.skip()
    verdict = yield from read_call(feed, pieces, names, needs_arguments=False)
    if verdict is Verdict.REFUSED:
        pieces.say(OPENING + feed.since_mark())
        feed.mark()
    elif verdict is Verdict.COMPLETE:
        feed.mark()
        yield from feed.skip()
        if not (yield from feed.literal(CLOSING)):
            feed.go_back()
    elif verdict is Verdict.BROKEN:
        pieces.break_call()
