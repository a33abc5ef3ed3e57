"""A call written as a JSON object: `{"name": "f", "arguments": {...}}`, in any order of its members.

It knows no markers around it. `arguments` may be called `parameters`, and may be a string that holds
the JSON text, as in OpenAI's own messages.
"""

import json
from dataclasses import dataclass, field
from enum import Enum, auto

from server.tools.feed import Feed, Reading
from server.tools.json_text import read_string, read_value
from server.tools.pieces import Pieces

MAX_ARGUMENT_CHARS = 1 << 20
ARGUMENT_KEYS = ("arguments", "parameters")
IDLE_KEYS = ("type", "id")
"""Members that some models write beside name and arguments; they tell nothing that is not known."""


class Verdict(Enum):
    """How the reading of a call went.

    REFUSED: it was none, nothing has been told of it. BROKEN: its arguments began and were told, but
    are no JSON from here on, or the text ended in them. Where it ends behind whole arguments, nothing is
    missing but marks, and the call is COMPLETE.
    """

    COMPLETE = auto()
    REFUSED = auto()
    BROKEN = auto()


@dataclass(slots=True)
class _Call:
    """What is known of the call so far; `waiting` are arguments that came before the name."""

    name: str = ""
    waiting: list[str] = field(default_factory=list)
    is_told: bool = False


def read_call(
    feed: Feed, pieces: Pieces, names: frozenset[str], *, needs_arguments: bool
) -> Reading[Verdict]:
    """Read one call of a function in `names` into `pieces`.

    It is told as soon as its name is known and its arguments begin. Unless `needs_arguments`, a call
    without any has empty ones.
    """
    call = _Call()
    if not (yield from feed.literal("{")):
        return Verdict.REFUSED
    while True:
        is_read = yield from _read_member(feed, pieces, names, call)
        if not is_read:
            return Verdict.BROKEN if call.is_told else Verdict.REFUSED
        yield from feed.skip()
        if (yield from feed.literal(",")):
            continue
        if not (yield from feed.literal("}")):
            is_whole = call.is_told and not (yield from feed.peek())
            return Verdict.COMPLETE if is_whole else Verdict.BROKEN if call.is_told else Verdict.REFUSED
        break
    if call.is_told:
        return Verdict.COMPLETE
    if not call.name or needs_arguments:
        return Verdict.REFUSED
    pieces.begin_call(call.name)
    pieces.argue("{}")
    return Verdict.COMPLETE


def _read_member(feed: Feed, pieces: Pieces, names: frozenset[str], call: _Call) -> Reading[bool]:
    yield from feed.skip()
    key = yield from read_string(feed)
    yield from feed.skip()
    if key is None or not (yield from feed.literal(":")):
        return False
    yield from feed.skip()
    if key == "name" and not call.name:
        return (yield from _read_name(feed, pieces, names, call))
    if key in ARGUMENT_KEYS and not call.is_told and not call.waiting:
        return (yield from _read_arguments(feed, pieces, call))
    if key in IDLE_KEYS:
        return (yield from read_string(feed)) is not None
    return False


def _read_name(feed: Feed, pieces: Pieces, names: frozenset[str], call: _Call) -> Reading[bool]:
    name = yield from read_string(feed)
    if name not in names:
        return False
    assert name is not None
    call.name = name
    if call.waiting:
        _tell(pieces, call)
    return True


def _read_arguments(feed: Feed, pieces: Pieces, call: _Call) -> Reading[bool]:
    character = yield from feed.peek()
    if character == '"':
        text = yield from read_string(feed, MAX_ARGUMENT_CHARS)
        if text is None or not _is_object(text):
            return False
        call.waiting.append(text)
    elif character == "{" and call.name:
        _tell(pieces, call)
        return (yield from read_value(feed, pieces.argue, is_told=True))
    elif character != "{" or not (yield from read_value(feed, call.waiting.append)):
        return False
    if call.name:
        _tell(pieces, call)
    return True


def _tell(pieces: Pieces, call: _Call) -> None:
    call.is_told = True
    pieces.begin_call(call.name)
    for text in call.waiting:
        pieces.argue(text)


def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False
