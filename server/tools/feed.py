"""`Feed`: text that arrives in pieces, read character by character as if it were all there.

A parser is a generator that reads a feed: whatever it needs next, it waits for by yielding. So it is
written as if for a whole text, and cutting the text differently cannot change what it finds.
"""

from collections.abc import Generator
from typing import TypeVar

T = TypeVar("T")

Reading = Generator[None, None, T]
"""A piece of a parser: it yields where text is missing, and returns what it found."""

BLANKS = " \t\r\n"


class Feed:
    """Text so far, and how far it has been read.

    What lies before `mark` is forgotten when more text arrives; up to there one can go back.
    """

    def __init__(self) -> None:
        self.is_over = False
        self._text = ""
        self._at = 0
        self._mark = 0

    def add(self, text: str) -> None:
        """More text has arrived."""
        self._text = self._text[self._mark :] + text
        self._at -= self._mark
        self._mark = 0

    def mark(self) -> None:
        """From here on nothing is forgotten, so that `since_mark` and `go_back` work."""
        self._mark = self._at

    def since_mark(self) -> str:
        """What was read since the mark."""
        return self._text[self._mark : self._at]

    def go_back(self) -> None:
        """Read again from the mark on."""
        self._at = self._mark

    def advance(self) -> None:
        """The current character has been read."""
        self._at += 1

    def peek(self) -> Reading[str]:
        """The current character; "" at the end of the text."""
        while self._at >= len(self._text):
            if self.is_over:
                return ""
            yield
        return self._text[self._at]

    def skip(self, characters: str = BLANKS) -> Reading[None]:
        """Read past all of `characters`."""
        while (character := (yield from self.peek())) and character in characters:
            self.advance()

    def literal(self, expected: str) -> Reading[bool]:
        """Whether exactly this comes next; only then it has been read."""
        start = self._at - self._mark
        for character in expected:
            if (yield from self.peek()) != character:
                self._at = self._mark + start
                return False
            self.advance()
        return True

    def until(self, marker: str) -> Reading[tuple[str, bool]]:
        """The text before `marker` that is there, and whether the marker, now read, stood behind it.

        Text that may be the marker's beginning is kept back; ("", False) is the end of all text.
        """
        while True:
            found = self._text.find(marker, self._at)
            end = found if found >= 0 else len(self._text) - (0 if self.is_over else self._num_begun(marker))
            if found >= 0 or end > self._at or self.is_over:
                before = self._text[self._at : end]
                self._at = end + (len(marker) if found >= 0 else 0)
                return before, found >= 0
            yield

    def rest(self) -> Reading[str]:
        """All that is there, at least a character; "" at the end of the text."""
        yield from self.peek()
        there = self._text[self._at :]
        self._at = len(self._text)
        self.mark()
        return there

    def _num_begun(self, marker: str) -> int:
        """How many of the last characters may be the beginning of `marker`."""
        longest = min(len(marker) - 1, len(self._text) - self._at)
        return next((n for n in range(longest, 0, -1) if self._text.endswith(marker[:n])), 0)
