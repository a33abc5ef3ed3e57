"""Files, functions and classes stay small enough to be read at once."""

import ast
from collections.abc import Iterator, Sequence

import pytest

from tests.architecture.source_tree import Function, SourceFile, expect_none, planted, read_tree

MAX_FILE_LINES = 400
MAX_TEST_FILE_LINES = 600  # one behaviour after the other, each read by itself
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 5
MAX_PUBLIC_METHODS = 10


def length_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    for file in files:
        num_lines = len(file.text.splitlines())
        most = MAX_TEST_FILE_LINES if str(file.path).startswith("tests/") else MAX_FILE_LINES
        if num_lines > most:
            yield file.at(num_lines, f"{num_lines} lines; at most {most}")
        for function in file.functions():
            num_lines = (function.end_lineno or function.lineno) - function.lineno + 1
            if num_lines > MAX_FUNCTION_LINES:
                yield file.at(
                    function.lineno, f"{function.name} has {num_lines} lines; at most {MAX_FUNCTION_LINES}"
                )


def parameter_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    """Keyword-only ones count too; `self` and `cls` do not. A record of data has none, it has fields."""
    for file in files:
        for function in file.functions():
            names = parameter_names(function)
            if len(names) > MAX_PARAMETERS:
                yield file.at(
                    function.lineno, f"{function.name} has {len(names)} parameters; at most {MAX_PARAMETERS}"
                )


def parameter_names(function: Function) -> list[str]:
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    every += [one for one in (arguments.vararg, arguments.kwarg) if one is not None]
    return [one.arg for one in every if one.arg not in ("self", "cls")]


def class_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    for file in files:
        for node in file.statements:
            if isinstance(node, ast.ClassDef):
                methods = [member for member in node.body if is_public_method(member)]
                if len(methods) > MAX_PUBLIC_METHODS:
                    yield file.at(
                        node.lineno,
                        f"{node.name} has {len(methods)} public methods; at most {MAX_PUBLIC_METHODS}",
                    )


def is_public_method(member: ast.stmt) -> bool:
    """Whether it is something that a caller can do; a property is something to see."""
    if not isinstance(member, Function) or member.name.startswith("_"):
        return False
    return "property" not in [ast.unparse(decorator) for decorator in member.decorator_list]


def test_files_and_functions_are_short():
    expect_none(length_violations(read_tree("engine", "server", "tests", "benchmarks")))


def test_functions_have_few_parameters():
    expect_none(parameter_violations(read_tree("engine", "server")))


def test_classes_have_few_public_methods():
    expect_none(class_violations(read_tree("engine", "server")))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        pytest.param("x = 1\n" * 401, 401, id="file"),
        pytest.param("x = 1\ndef f():\n" + "    x = 1\n" * 60, 2, id="function"),
        pytest.param("class A:\n    async def f(self):\n" + "        x = 1\n" * 60, 2, id="method"),
    ],
)
def test_what_is_too_long_is_found(text, line):
    found = list(length_violations([planted("engine/loop.py", text)]))

    assert [violation.split(": ")[0] for violation in found] == [f"engine/loop.py:{line}"]


@pytest.mark.parametrize(
    "signature", ["a, b, c, d, e, f", "self, a, b, c, *, d, e, f", "a, b, c, d, *rest, **more"]
)
def test_too_many_parameters_are_found(signature):
    assert len(list(parameter_violations([planted("engine/loop.py", f"def f({signature}): ...")]))) == 1


def test_five_parameters_and_self_are_let_through():
    assert list(parameter_violations([planted("engine/loop.py", "def f(self, a, b, c, *, d, e): ...")])) == []


def test_too_many_methods_are_found():
    text = "class A:\n" + "".join(f"    def do_{number}(self): ...\n" for number in range(11))

    assert list(class_violations([planted("engine/loop.py", text)])) == [
        "engine/loop.py:1: A has 11 public methods; at most 10"
    ]
