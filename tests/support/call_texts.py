"""Answers with calls, as models of each format write them, and how a parser is played with them."""

from collections.abc import Sequence

from server.tools.call_parser import CallParser
from server.tools.formats import HERMES, JSON, LLAMA3, MISTRAL, MISTRAL_NAMED, ToolFormat
from server.tools.pieces import CallArguments, CallBegun, Piece, Said, joined

FORMATS = {
    "hermes": HERMES,
    "mistral": MISTRAL,
    "mistral named": MISTRAL_NAMED,
    "llama3": LLAMA3,
    "json": JSON,
}
NAMES = frozenset({"get_weather", "add"})
CALLS = (("get_weather", '{"city": "Paris", "days": [1, 2]}'), ("add", '{"a": -1.5e3, "b": {"c": null}}'))


def parsed(tool_format: ToolFormat, parts: Sequence[str]) -> list[Piece]:
    """All pieces of a text that arrives in `parts`."""
    parser = CallParser(tool_format.read, NAMES)
    pieces = [piece for part in parts for piece in parser.feed(part)]
    return joined(pieces + parser.finish())


def said(pieces: Sequence[Piece]) -> str:
    return "".join(piece.text for piece in pieces if isinstance(piece, Said))


def called(pieces: Sequence[Piece]) -> list[tuple[str, str]]:
    """Name and arguments of each call."""
    begun = [piece for piece in pieces if isinstance(piece, CallBegun)]
    return [
        (
            call.name,
            "".join(p.text for p in pieces if isinstance(p, CallArguments) and p.index == call.index),
        )
        for call in begun
    ]
