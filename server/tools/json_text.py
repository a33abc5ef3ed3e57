"""JSON text read as it arrives: whether it is still the beginning of one value, and where that ends.

`JsonScanner` is a push-down automaton over characters. It makes no values of them: arguments are
passed on as the text they are.
"""

import json
from collections.abc import Callable

from server.tools.feed import BLANKS, Feed, Reading

MAX_DEPTH = 128
MAX_STRING_CHARS = 1024
_ESCAPES = frozenset('"\\/bfnrtu')
_HEX = frozenset("0123456789abcdefABCDEF")
_WORDS = {"t": "true", "f": "false", "n": "null"}
_NUMBER_MOVES = {
    "-": {"0": "zero", "d": "int"},
    "zero": {".": "point", "e": "exp"},
    "int": {"0": "int", "d": "int", ".": "point", "e": "exp"},
    "point": {"0": "frac", "d": "frac"},
    "frac": {"0": "frac", "d": "frac", "e": "exp"},
    "exp": {"0": "digits", "d": "digits", "-": "sign", "+": "sign"},
    "sign": {"0": "digits", "d": "digits"},
    "digits": {"0": "digits", "d": "digits"},
}
_NUMBER_ENDS = frozenset({"zero", "int", "frac", "digits"})


class JsonScanner:
    """Takes the characters of one object or array, one after the other.

    Control characters in strings, which JSON wants escaped, are taken too: models write line breaks.
    """

    def __init__(self) -> None:
        self._closers: list[str] = []
        self._expects = "value"  # value, first, key, colon, more; string, escape, hex, word, number
        self._is_key = False
        self._rest = ""
        self._number = ""

    @property
    def is_complete(self) -> bool:
        """Whether the value has ended."""
        return self._expects == "more" and not self._closers

    @property
    def is_in_string(self) -> bool:
        """Whether the next character belongs to a string."""
        return self._expects == "string"

    def take(self, character: str) -> bool:
        """Whether the text with `character` behind it can still become a value."""
        match self._expects:
            case "string" | "escape" | "hex":
                return self._take_in_string(character)
            case "word":
                return self._take_in_word(character)
            case "number":
                return self._take_in_number(character)
        return character in BLANKS or self._take_mark(character)

    def _take_mark(self, character: str) -> bool:
        expects = self._expects
        if expects == "colon":
            self._expects = "value"
            return character == ":"
        if expects == "more":
            return self._take_after_value(character)
        if expects == "first" and character == self._closers[-1]:
            return self._close()
        if self._closers and self._closers[-1] == "}" and expects in ("first", "key"):
            self._expects, self._is_key = "string", True
            return character == '"'
        return self._begin_value(character)

    def _take_after_value(self, character: str) -> bool:
        if not self._closers:
            return False
        if character == self._closers[-1]:
            return self._close()
        self._expects = "key" if self._closers[-1] == "}" else "value"
        return character == ","

    def _begin_value(self, character: str) -> bool:
        if character in "{[":
            self._closers.append("}" if character == "{" else "]")
            self._expects = "first"
            return len(self._closers) <= MAX_DEPTH
        if not self._closers:
            return False
        if character == '"':
            self._expects, self._is_key = "string", False
        elif character in _WORDS:
            self._expects, self._rest = "word", _WORDS[character][1:]
        else:
            self._expects = "number"
            self._number = {"-": "-", "0": "zero"}.get(character, "int" if character in "123456789" else "")
            return bool(self._number)
        return True

    def _close(self) -> bool:
        self._closers.pop()
        self._expects = "more"
        return True

    def _take_in_string(self, character: str) -> bool:
        if self._expects == "escape":
            self._expects, self._rest = ("hex", "0000") if character == "u" else ("string", "")
            return character in _ESCAPES
        if self._expects == "hex":
            self._rest = self._rest[1:]
            self._expects = "hex" if self._rest else "string"
            return character in _HEX
        if character == '"':
            self._expects = "colon" if self._is_key else "more"
        elif character == "\\":
            self._expects = "escape"
        return True

    def _take_in_word(self, character: str) -> bool:
        expected, self._rest = self._rest[0], self._rest[1:]
        if not self._rest:
            self._expects = "more"
        return character == expected

    def _take_in_number(self, character: str) -> bool:
        kind = "d" if character in "123456789" else "e" if character in "eE" else character
        following = _NUMBER_MOVES[self._number].get(kind)
        if following is not None:
            self._number = following
            return True
        if self._number not in _NUMBER_ENDS:
            return False
        self._expects = "more"
        return character in BLANKS or self._take_after_value(character)


def read_value(feed: Feed, sink: Callable[[str], None], *, is_told: bool = False) -> Reading[bool]:
    """Read an object or array into `sink`; False at the first character that cannot belong to it.

    Of what `is_told`, nothing has to be kept to be read again.
    """
    scanner = JsonScanner()
    while not scanner.is_complete:
        character = yield from feed.peek()
        is_in_string = scanner.is_in_string
        if not character or not scanner.take(character):
            return False
        sink(json.dumps(character)[1:-1] if is_in_string and character < " " else character)
        feed.advance()
        if is_told:
            feed.mark()
    return True


def read_string(feed: Feed, limit: int = MAX_STRING_CHARS) -> Reading[str | None]:
    """Read a string and return what it says; None if there is none, or none within `limit` characters."""
    if not (yield from feed.literal('"')):
        return None
    written, is_escaped = ['"'], False
    while len(written) < limit:
        character = yield from feed.peek()
        if not character:
            return None
        written.append(character)
        feed.advance()
        if character == '"' and not is_escaped:
            return _decoded("".join(written))
        is_escaped = character == "\\" and not is_escaped
    return None


def _decoded(written: str) -> str | None:
    try:
        return str(json.loads(written, strict=False))
    except ValueError:
        return None
