"""Everything public says what it is."""

import ast
from collections.abc import Iterator, Sequence

import pytest

from tests.architecture.source_tree import Function, SourceFile, expect_none, planted, read_tree

Documented = ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


def docstring_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    for file in files:
        if file.tree.body and ast.get_docstring(file.tree) is None:
            yield file.at(1, "the module says neither what it is for nor what it does not know")
        for name, node in public_parts(file.tree.body):
            if not (ast.get_docstring(node) or "").strip():
                yield file.at(node.lineno, f"{name} has no docstring")


def public_parts(body: Sequence[ast.stmt], owner: str = "") -> Iterator[tuple[str, Documented]]:
    """Public classes and functions, and what is public in those classes; a setter shares its getter's words."""
    for node in body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        if isinstance(node, Function) and any(is_setter(decorator) for decorator in node.decorator_list):
            continue
        name = f"{owner}{node.name}"
        yield name, node
        if isinstance(node, ast.ClassDef):
            yield from public_parts(node.body, f"{name}.")


def is_setter(decorator: ast.expr) -> bool:
    return isinstance(decorator, ast.Attribute) and decorator.attr in ("setter", "deleter")


def test_everything_public_has_a_docstring():
    expect_none(docstring_violations(read_tree("engine", "server")))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("x = 1", 1, id="module"),
        pytest.param('"""M."""\n\ndef f(): ...', 3, id="function"),
        pytest.param('"""M."""\n\nclass A: ...', 3, id="class"),
        pytest.param('"""M."""\nclass A:\n    """A."""\n    async def f(self): ...', 4, id="method"),
    ],
)
def test_a_missing_docstring_is_found(text, line):
    found = list(docstring_violations([planted("engine/loop.py", text)]))

    assert [violation.split(": ")[0] for violation in found] == [f"engine/loop.py:{line}"]


def test_what_is_private_needs_none():
    text = (
        '"""M."""\ndef _f(): ...\nclass A:\n    """A."""\n    def __init__(self): ...\n    def _g(self): ...'
    )

    assert list(docstring_violations([planted("engine/loop.py", text)])) == []
