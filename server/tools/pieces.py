"""What an answer's text turns out to be, piece by piece: words, thoughts, and calls of functions.

`Pieces` gathers what a parser found. It knows no format, and nothing of the wire.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from itertools import groupby


@dataclass(frozen=True, slots=True)
class Said:
    """Text for the reader of the answer."""

    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    """Text of a reasoning block."""

    text: str


@dataclass(frozen=True, slots=True)
class CallBegun:
    """A call of the function `name`; calls of a choice are counted from 0."""

    index: int
    name: str


@dataclass(frozen=True, slots=True)
class CallArguments:
    """More of the JSON text of a call's arguments."""

    index: int
    text: str


Piece = Said | Thought | CallBegun | CallArguments


class Pieces:
    """Pieces in their order, neighbours of one kind joined when they are taken.

    White space beside a call belongs to the format, not to the text, so it is kept back until it is
    known what comes behind it. `is_broken` says that a call's arguments, told already, came to nothing.
    """

    def __init__(self) -> None:
        self.num_calls = 0
        self.is_broken = False
        self._found: list[Piece] = []
        self._blank = ""
        self._follows_call = False

    def say(self, text: str) -> None:
        """Text goes on."""
        kept = text.rstrip()
        if not kept:
            self._blank += text
            return
        self._found.append(Said(self._blank + kept))
        self._blank = text[len(kept) :]
        self._follows_call = False

    def begin_call(self, name: str) -> None:
        """A call begins; what is argued from now on belongs to it."""
        self._blank = ""
        self._follows_call = True
        self._found.append(CallBegun(self.num_calls, name))
        self.num_calls += 1

    def argue(self, text: str) -> None:
        """The arguments of the newest call go on."""
        self._found.append(CallArguments(self.num_calls - 1, text))

    def break_call(self) -> None:
        """The arguments of the newest call are no JSON, or end too early; what follows is text again."""
        self.is_broken = True
        self._follows_call = False

    def end(self) -> None:
        """No text follows."""
        if self._blank and not self._follows_call:
            self._found.append(Said(self._blank))
        self._blank = ""

    def take(self) -> list[Piece]:
        """What was found since the last time."""
        found, self._found = self._found, []
        return joined(found)


def joined(pieces: Iterable[Piece]) -> list[Piece]:
    """The same with neighbours of one kind as one."""
    whole: list[Piece] = []
    for _, run in groupby(pieces, _kind):
        first, *others = run
        if others and not isinstance(first, CallBegun):
            text = first.text + "".join(piece.text for piece in others if not isinstance(piece, CallBegun))
            first = replace(first, text=text)
        whole.append(first)
    return whole


def _kind(piece: Piece) -> tuple[type[Piece], int]:
    return type(piece), -1 if isinstance(piece, Said | Thought) else piece.index
