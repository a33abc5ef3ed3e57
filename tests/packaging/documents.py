"""The project's pages as what can be checked of them: shell commands, links and headings."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^```(\w*)\s*$")
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")
ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its language, the line of its first line, its text."""

    language: str
    line: int
    text: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One program with its arguments, and the variables set for it alone."""

    line: int
    variables: dict[str, str]
    words: tuple[str, ...]

    @property
    def program(self) -> str:
        """The program's own name, without the folder that it is in; "" where only variables are set."""
        return Path(self.words[0]).name if self.words else ""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of Markdown; `name` is for messages."""

    name: str
    text: str

    @property
    def blocks(self) -> tuple[Block, ...]:
        """Its fenced blocks."""
        found: list[Block] = []
        opened: tuple[str, int] | None = None
        lines = self.text.splitlines()
        for index, line in enumerate(lines):
            fence = FENCE.match(line)
            if fence and opened is None:
                opened = (fence[1], index + 1)
            elif opened is not None and line.rstrip() == "```":
                language, start = opened
                found.append(Block(language=language, line=start + 1, text="\n".join(lines[start:index])))
                opened = None
        assert opened is None, f"{self.name}: a block is not closed"
        return tuple(found)

    @property
    def prose(self) -> str:
        """The text without its fenced blocks."""
        return re.sub(r"^```.*?^```\s*$", "", self.text, flags=re.DOTALL | re.MULTILINE)

    @property
    def links(self) -> tuple[str, ...]:
        """Where its links lead."""
        return tuple(LINK.findall(re.sub(r"`[^`]*`", "", self.prose)))

    @property
    def anchors(self) -> frozenset[str]:
        """What a link may name after `#`: the headings, as GitHub writes them."""
        headings = re.findall(r"^#+\s+(.*?)\s*$", self.prose, flags=re.MULTILINE)
        return frozenset(re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings)

    def commands(self) -> Iterator[Command]:
        """Every command of its `sh` blocks, in order."""
        for block in self.blocks:
            if block.language == "sh":
                yield from read_commands(block.text, first_line=block.line)


def read_commands(script: str, *, first_line: int = 1) -> Iterator[Command]:
    """The commands of a plain script: lines, joined by a backslash, cut at `&&`, `||`, `|`, `;` and `&`."""
    # A joined line keeps its place: what was joined to it leaves empty lines behind.
    joined = re.sub(r"((?:[^\n]*\\\n)+)([^\n]*)", _join, script)
    for number, line in enumerate(joined.splitlines(), first_line):
        lexer = shlex.shlex(line, posix=True, punctuation_chars="&|;<>")
        lexer.whitespace_split = True
        words: list[str] = []
        for token in [*lexer, ";"]:
            if set(token) <= set("&|;"):
                if words:
                    yield _to_command(number, words)
                words = []
            else:
                words.append(token)


def _join(found: re.Match[str]) -> str:
    continued = found[1].count("\\\n")
    return found[1].replace("\\\n", " ") + found[2] + "\n" * continued


def _to_command(line: int, words: list[str]) -> Command:
    count = 0
    while count < len(words) and ASSIGNMENT.fullmatch(words[count]):
        count += 1
    variables = dict(word.split("=", 1) for word in words[:count])
    return Command(line=line, variables=variables, words=tuple(words[count:]))
