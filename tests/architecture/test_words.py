"""Names that say nothing, output and environment out of place, features named where none may be."""

import ast
import re
from collections.abc import Iterator, Sequence

import pytest

from tests.architecture.source_tree import SourceFile, dotted, expect_none, planted, read_tree

EMPTY_NAMES = frozenset({"utils", "util", "helpers", "helper", "common", "misc", "base", "manager", "core"})
NAMED_ALL_THE_SAME = frozenset({"server/schemas/common.py", "tests/server/schemas/test_common.py"})

SETTINGS = "server/settings.py"

# What never learns a feature's name. A quantity is no feature.
CENTRAL_FILES = ("engine/loop.py", "engine/scheduling/scheduler.py", "engine/models/decoder.py")
FEATURE = re.compile(
    r"(?<![a-z])(lora|grammar|draft|graph|quant(?!it(y|ies))|probe|tool|adapter)", re.IGNORECASE
)


def name_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    for file in files:
        names = [*file.path.parts[:-1], file.path.stem.removeprefix("test_")]
        empty = sorted(EMPTY_NAMES.intersection(names))
        if empty and file.path.as_posix() not in NAMED_ALL_THE_SAME:
            yield file.at(1, f"{empty[0]!r} says nothing; name it after what it defines")


def print_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    for file in files:
        for node in file.nodes:
            if isinstance(node, ast.Call) and dotted(node.func) in ("print", "builtins.print"):
                yield file.at(node.lineno, "print; log it, or write to a stream that was passed")


def environment_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    readers = {"environ", "environb", "getenv", "getenvb"}
    for file in files:
        if file.path.as_posix() == SETTINGS:
            continue
        for node in file.nodes:
            if isinstance(node, ast.Attribute) and dotted(node.value) == "os" and node.attr in readers:
                yield file.at(node.lineno, f"os.{node.attr}; only {SETTINGS} reads the environment")
        for entry in file.imports:
            if entry.module == "os" and entry.name in readers:
                yield file.at(entry.line, f"os.{entry.name}; only {SETTINGS} reads the environment")


def feature_violations(file: SourceFile) -> Iterator[str]:
    for number, line in enumerate(file.text.splitlines(), 1):
        # A capital begins a word as an underscore does: useAdapterHere.
        word = FEATURE.search(line) or FEATURE.search(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", line))
        if word:
            yield file.at(number, f"{word[0]!r}: this file knows no feature; plug it into a seam")


def test_files_are_named_after_what_they_define():
    expect_none(name_violations(read_tree("engine", "server", "tests", "benchmarks")))


def test_nothing_is_printed():
    expect_none(print_violations(read_tree("engine", "server")))


def test_only_the_settings_read_the_environment():
    expect_none(environment_violations(read_tree("engine", "server")))


@pytest.mark.parametrize("path", CENTRAL_FILES)
def test_the_central_files_name_no_feature(path):
    (file,) = (file for file in read_tree(path.split("/")[0]) if file.path.as_posix() == path)

    expect_none(feature_violations(file))


@pytest.mark.parametrize("path", ["engine/utils.py", "engine/core/pool.py", "tests/engine/test_helpers.py"])
def test_an_empty_name_is_found(path):
    assert len(list(name_violations([planted(path, "")]))) == 1


def test_a_print_is_found():
    assert list(print_violations([planted("engine/loop.py", "x = 1\nprint(x)")])) == [
        "engine/loop.py:2: print; log it, or write to a stream that was passed"
    ]


@pytest.mark.parametrize(
    "text",
    [
        "import os\nos.environ['A']",
        "import os\nos.getenv('A')",
        "\nfrom os import environ",
        "\nfrom os import getenv",
    ],
)
def test_a_read_of_the_environment_is_found(text):
    found = list(environment_violations([planted("engine/loop.py", text)]))

    assert [violation.startswith("engine/loop.py:2:") for violation in found] == [True]


@pytest.mark.parametrize(
    "line",
    ["# LoRA comes here", "use_drafts = 1", "class ToolCall: ...", "x.adapterIndex", "is_quantized = 1"],
)
def test_the_name_of_a_feature_is_found(line):
    assert len(list(feature_violations(planted("engine/loop.py", line)))) == 1


def test_a_word_that_only_contains_one_is_let_through():
    assert (
        list(
            feature_violations(planted("engine/loop.py", "# this paragraph tells a quantity, in photographs"))
        )
        == []
    )
