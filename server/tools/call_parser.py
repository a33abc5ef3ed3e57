"""`CallParser`: the text of one choice as it arrives, taken apart into words and calls.

The same parser serves streamed and whole answers, so that both find the same. No text is lost: what is
no call of a declared function comes back as text. Arguments are told as they arrive, so a call whose
arguments turn out to be no JSON keeps those that were told, and the rest of it comes back as text.
"""

from collections.abc import Callable

from server.tools.feed import Feed, Reading
from server.tools.pieces import Piece, Pieces

Reader = Callable[[Feed, Pieces, frozenset[str]], Reading[None]]


class CallParser:
    """Reads one choice by the rules of a format; `names` are the functions that may be called."""

    def __init__(self, read: Reader, names: frozenset[str]) -> None:
        self._feed = Feed()
        self._pieces = Pieces()
        self._reading: Reading[None] | None = read(self._feed, self._pieces, names)

    @property
    def num_calls(self) -> int:
        """How many calls have begun."""
        return self._pieces.num_calls

    @property
    def is_broken(self) -> bool:
        """Whether a call that was told turned out to be none."""
        return self._pieces.is_broken

    def feed(self, text: str) -> list[Piece]:
        """What is certain now that `text` has arrived."""
        self._feed.add(text)
        self._advance()
        return self._pieces.take()

    def finish(self) -> list[Piece]:
        """What was kept back: no more text comes."""
        self._feed.is_over = True
        self._advance()
        self._pieces.end()
        return self._pieces.take()

    def _advance(self) -> None:
        if self._reading is not None and next(self._reading, self) is self:
            self._reading = None
