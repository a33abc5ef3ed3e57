"""The project's Python files as syntax trees, and what the architecture checks ask of them.

Files are read, never imported, so a check sees what is written on every path through the code.
A check is a function that returns violations, each one line that begins with file and line.
"""

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, slots=True, kw_only=True)
class Import:
    """One imported module, or one name of it; `name` is None for `import module`.

    `is_for_types` says that only type checkers see it.
    """

    line: int
    module: str
    name: str | None
    is_relative: bool
    is_for_types: bool


@dataclass(frozen=True)
class SourceFile:
    """One Python file; `path` is relative to the root of the project."""

    path: Path
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The parsed file."""
        return ast.parse(self.text, str(self.path))

    @cached_property
    def nodes(self) -> tuple[ast.AST, ...]:
        """All of its syntax, from the outside in."""
        return tuple(ast.walk(self.tree))

    @cached_property
    def statements(self) -> tuple[ast.AST, ...]:
        """The same without what stands in expressions: functions, classes and imports are all here."""
        return tuple(_statements(self.tree))

    @property
    def module(self) -> str:
        """Its dotted name: `engine/cache/pool.py` is `engine.cache.pool`."""
        parts = self.path.with_suffix("").parts
        return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)

    @cached_property
    def imports(self) -> tuple[Import, ...]:
        """Every import statement, one entry per name, wherever in the file it stands."""
        return tuple(_imports(self.tree, is_for_types=False))

    def at(self, line: int, message: str) -> str:
        """A violation in this file."""
        return f"{self.path}:{line}: {message}"

    def functions(self) -> Iterator[Function]:
        """All functions and methods, nested ones too."""
        for node in self.statements:
            if isinstance(node, Function):
                yield node


def read_tree(*folders: str) -> tuple[SourceFile, ...]:
    """All Python files under `folders`, sorted by path; each is read and parsed once for all checks."""
    paths = sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return tuple(_read(path) for path in paths)


def planted(path: str, text: str) -> SourceFile:
    """A file that is not on the disk, to show that a check finds what it is for."""
    return SourceFile(Path(path), text)


def dotted(node: ast.AST) -> str:
    """`a.b.c` as it is written; what is more than a name counts as an empty one: `a[0].b` is `.b`."""
    if isinstance(node, ast.Name):
        return node.id
    return f"{dotted(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else ""


def expect_none(violations: Iterable[str]) -> None:
    """Fail with one line per violation."""
    found = list(violations)
    if found:
        pytest.fail("\n" + "\n".join(found), pytrace=False)


@cache
def _read(path: Path) -> SourceFile:
    return SourceFile(path.relative_to(ROOT), path.read_text("utf-8"))


def _statements(node: ast.AST) -> Iterator[ast.AST]:
    for child in ast.iter_child_nodes(node):
        if not isinstance(child, ast.expr):
            yield child
            yield from _statements(child)


def _imports(node: ast.AST, *, is_for_types: bool) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Import(
                    line=child.lineno,
                    module=alias.name,
                    name=None,
                    is_relative=False,
                    is_for_types=is_for_types,
                )
        elif isinstance(child, ast.ImportFrom):
            for alias in child.names:
                yield Import(
                    line=child.lineno,
                    module=child.module or "",
                    name=alias.name,
                    is_relative=child.level > 0,
                    is_for_types=is_for_types,
                )
        elif not isinstance(child, ast.expr):
            yield from _imports(child, is_for_types=is_for_types or _is_type_checking(child))


def _is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
