"""The Dockerfile as stages, and .dockerignore as the rule that it is."""

import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath

from dockerfile_parse import DockerfileParser

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Instruction:
    """One instruction: `name` as RUN or COPY, `value` what follows it, on one line."""

    line: int
    name: str
    value: str

    @property
    def words(self) -> list[str]:
        """The value's words without the instruction's own flags (`--from=…`, `--mount=…`)."""
        words = shlex.split(self.value)
        while words and words[0].startswith("--"):
            del words[0]
        return words

    def flag(self, name: str) -> str | None:
        """The value of the instruction's own flag, or None without it."""
        found = re.match(rf"(?:--\S+\s+)*--{name}=(\S+)", self.value)
        return found[1] if found else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One FROM and what follows it; `base` is an image or an earlier stage."""

    name: str
    base: str
    instructions: tuple[Instruction, ...]


def read_stages(text: str) -> dict[str, Stage]:
    """The stages of a Dockerfile by name, in its order; ARGs before the first FROM are put in."""
    parser = DockerfileParser(fileobj=BytesIO(text.encode()), env_replace=False)
    arguments: dict[str, str] = {}
    found: list[tuple[str, str, list[Instruction]]] = []
    for entry in parser.structure:
        name, value = entry["instruction"], entry["value"]
        if name == "FROM":
            base, _, stage = value.partition(" AS ")
            found.append((stage or str(len(found)), _put_in(base, arguments), []))
        elif name == "ARG" and not found:
            key, _, default = value.partition("=")
            arguments[key] = default
        elif name != "COMMENT":
            found[-1][2].append(Instruction(line=entry["startline"] + 1, name=name, value=value))
    return {
        name: Stage(name=name, base=base, instructions=tuple(instructions))
        for name, base, instructions in found
    }


def lineage(stages: Mapping[str, Stage], name: str) -> Iterator[Instruction]:
    """All instructions that make the stage `name`: those of what it is based on, then its own."""
    stage = stages[name]
    if stage.base in stages:
        yield from lineage(stages, stage.base)
    yield from stage.instructions


def root_image(stages: Mapping[str, Stage], name: str) -> str:
    """The image that the stage `name` is based on in the end."""
    base = stages[name].base
    return root_image(stages, base) if base in stages else base


def last(instructions: Sequence[Instruction], name: str) -> Instruction | None:
    """The one that counts of several instructions called `name`; None without any."""
    return next((one for one in reversed(instructions) if one.name == name), None)


def is_excluded(path: PurePosixPath, dockerignore: str) -> bool:
    """Whether the build is not given `path`: of the patterns that match it or a folder above, the last decides."""
    excluded = False
    for line in dockerignore.splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        regex = _to_regex(pattern.removeprefix("!").strip("/"))
        if any(regex.fullmatch(str(part)) for part in (path, *path.parents)):
            excluded = not pattern.startswith("!")
    return excluded


def copied_files(instruction: Instruction, dockerignore: str) -> Iterator[PurePosixPath]:
    """The files of the project that a COPY takes from the build context, relative to the root."""
    for source in instruction.words[:-1]:
        path = ROOT / source
        for file in path.rglob("*") if path.is_dir() else (path,):
            inside = PurePosixPath(file.relative_to(ROOT))
            if file.is_file() and not is_excluded(inside, dockerignore):
                yield inside


def _put_in(text: str, arguments: Mapping[str, str]) -> str:
    return re.sub(r"\$\{(\w+)\}", lambda found: arguments[found[1]], text)


def _to_regex(pattern: str) -> re.Pattern[str]:
    pieces = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    parts = re.split(r"(\*\*/|\*\*|\*|\?)", pattern)
    return re.compile("".join(pieces.get(part) or re.escape(part) for part in parts))
