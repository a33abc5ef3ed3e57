"""Every import goes down: ranks, halves, the door between server and engine, and libraries."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter

import pytest

import engine
from tests.architecture.ranks import ENGINE, LIBRARIES, PLACES, SERVER, Half, unit_of
from tests.architecture.source_tree import ROOT, SourceFile, dotted, expect_none, planted, read_tree

FACADE = "engine"  # engine/__init__.py: it names modules, and loads none before it is asked


def is_ours(module: str) -> bool:
    return module.split(".", maxsplit=1)[0] in ("engine", "server")


def targets(file: SourceFile, modules: frozenset[str]) -> Iterator[tuple[int, str]]:
    """Line and module of each import of ours; `from engine.cache import pool` is engine.cache.pool."""
    for entry in file.imports:
        inner = f"{entry.module}.{entry.name}"
        if is_ours(entry.module):
            yield entry.line, inner if inner in modules else entry.module


def modules_of(files: Sequence[SourceFile]) -> frozenset[str]:
    return frozenset(file.module for file in files)


def rank_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    modules = modules_of(files) | {file.module for file in read_tree("engine", "server")}
    for file in files:
        if file.module in ("engine", "server") or file.path.name == "__init__.py":
            continue
        unit = unit_of(file.module)
        if unit not in PLACES:
            yield file.at(1, f"{unit} has no rank; give it one in tests/architecture/ranks.py")
            continue
        for line, target in targets(file, modules):
            if target == FACADE and unit.startswith("server."):
                continue  # the door; its names have a check of their own
            complaint = arrow_complaint(unit, unit_of(target))
            if complaint:
                yield file.at(line, complaint)


def arrow_complaint(unit: str, target: str) -> str | None:
    """What is wrong with `unit` importing `target`, or None."""
    own, other = PLACES[unit], PLACES.get(target)
    if unit == target:
        return None
    if other is None or unit.split(".", maxsplit=1)[0] != target.split(".", maxsplit=1)[0]:
        return f"{unit} must not import {target}"
    if other.half not in (own.half, Half.BOTH):
        return f"{unit} is of the {own.half} half and must not import {target}, of the {other.half} half"
    if other.rank > own.rank or (other.rank == own.rank and target.split(".")[1] not in own.arrows):
        return f"{unit} (rank {own.rank}) must not import {target} (rank {other.rank})"
    return None


def door_violations(files: Sequence[SourceFile], public: frozenset[str]) -> Iterator[str]:
    """`server` says `from engine import Name`, with a public name, and nothing else."""
    for file in files:
        for entry in file.imports:
            if entry.module.split(".")[0] != "engine":
                continue
            if entry.module != "engine" or entry.name is None:
                yield file.at(entry.line, f"import {entry.module}: the server imports `from engine` only")
            elif entry.name not in public:
                yield file.at(entry.line, f"{entry.name} is not in engine.__all__")


def facade_violations(file: SourceFile) -> Iterator[str]:
    """engine/__init__.py loads nothing of ours by itself, and names no module of the core half."""
    for entry in file.imports:
        if not is_ours(entry.module):
            continue
        place = PLACES[unit_of(entry.module)]
        if not entry.is_for_types:
            yield file.at(entry.line, f"{entry.module} is loaded by importing the package")
        if place.half is Half.CORE:
            yield file.at(entry.line, f"{entry.module} is of the core half")


def library_violations(
    files: Sequence[SourceFile], libraries: Mapping[str, tuple[str, ...]]
) -> Iterator[str]:
    for file in files:
        for entry in file.imports:
            homes = libraries.get(entry.module.split(".")[0])
            if homes is None or any(f"{file.module}.".startswith(f"{home}.") for home in homes):
                continue
            yield file.at(
                entry.line, f"{entry.module} may be imported in {', '.join(homes) or 'no module'} only"
            )


def style_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    """Imports are absolute and written out."""
    for file in files:
        for entry in file.imports:
            if entry.is_relative:
                yield file.at(entry.line, "relative import")
            if entry.name == "*":
                yield file.at(entry.line, "import of everything")
        for node in file.nodes:
            called = dotted(node.func) if isinstance(node, ast.Call) else ""
            if called.endswith(("import_module", "__import__")) and file.module != FACADE:
                yield file.at(getattr(node, "lineno", 1), f"{called} hides an import")


def async_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    """The engine process is plain synchronous code; the channel has an end for each process."""
    for file in files:
        place = PLACES.get(unit_of(file.module))
        if place is None or place.half is Half.FRONT or file.module == "engine.channel":
            continue
        for entry in file.imports:
            if entry.module.split(".")[0] == "asyncio":
                yield file.at(entry.line, "asyncio outside the server process")


def cycle_violations(files: Sequence[SourceFile]) -> Iterator[str]:
    modules = modules_of(files)
    graph = {
        file.module: {target for _, target in targets(file, modules)} & modules - {FACADE}
        for file in files
        if file.module != FACADE
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        yield f"modules import each other in a circle: {' -> '.join(reversed(error.args[1]))}"


def test_the_whole_tree_is_read():
    """An empty set of files would pass every other check."""
    expected = set(PLACES)

    seen = {unit_of(file.module) for file in read_tree("engine", "server") if "." in file.module}

    assert expected - seen == set(), "ranks.py names what is not there"


@pytest.mark.parametrize("unit", ENGINE)
def test_the_documented_table_has_each_unit_in_the_row_of_its_rank(unit):
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    rows = dict(re.findall(r"^\| (\d) \|(.*)$", text[text.index("## Who may import whom") :], re.MULTILINE))

    assert f"`{unit}`" in rows[str(ENGINE[unit].rank)]


def test_the_documented_chain_has_each_unit_of_the_server():
    text = (ROOT / "docs" / "architecture.md").read_text("utf-8")
    chain = text[text.index("\nIn the server: ") :]

    assert [unit for unit in SERVER if f"`{unit}`" not in chain] == []


def test_imports_go_to_lower_ranks_of_the_same_half():
    expect_none(rank_violations(read_tree("engine", "server")))


def test_the_server_uses_the_engines_public_names_only():
    expect_none(door_violations(read_tree("server"), frozenset(engine.__all__)))


def test_the_engine_package_loads_nothing_by_itself():
    (file,) = (file for file in read_tree("engine") if file.module == FACADE)

    expect_none(facade_violations(file))


def test_every_public_name_of_the_engine_resolves():
    unresolved = [name for name in engine.__all__ if getattr(engine, name, None) is None]

    assert unresolved == []


def test_libraries_are_imported_where_they_belong():
    expect_none(library_violations(read_tree("engine", "server"), LIBRARIES))


def test_imports_are_absolute_and_in_plain_sight():
    expect_none(style_violations(read_tree("engine", "server")))


def test_the_core_half_is_not_async():
    expect_none(async_violations(read_tree("engine")))


def test_no_modules_import_each_other_in_a_circle():
    expect_none(cycle_violations(read_tree("engine", "server")))


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("engine/layers/mlp.py", "from engine.models import decoder", id="upward"),
        pytest.param("engine/scheduling/queue.py", "import engine.execution.pack", id="sideways"),
        pytest.param("engine/intake.py", "import engine.loop", id="against an arrow"),
        pytest.param("engine/text/words.py", "from engine.cache.pool import CachePool", id="front to core"),
        pytest.param("engine/build.py", "from engine.stream import TokenStream", id="core to front"),
        pytest.param("engine/config.py", "from engine.plan import Chunk", id="both to core"),
        pytest.param("engine/logs.py", "from server.settings import Settings", id="engine to server"),
        pytest.param("engine/loop.py", "def f():\n    from engine import Engine", id="inside a function"),
        pytest.param("server/sse.py", "from server.routes import chat", id="server upward"),
        pytest.param("engine/novelty.py", "", id="without a rank"),
    ],
)
def test_a_wrong_arrow_is_found(path, text):
    found = list(rank_violations([planted(path, text)]))

    assert [violation.startswith(f"{path}:") for violation in found] == [True]


def test_a_right_arrow_is_let_through():
    files = [
        planted("engine/loop.py", "from engine.intake import Intake\nfrom engine.cache import pool"),
        planted("engine/channel.py", "from engine.messages import Submit"),
        planted("server/app.py", "from engine import Engine\nfrom server.routes import chat"),
    ]

    assert list(rank_violations(files)) == []


@pytest.mark.parametrize("text", ["import engine", "import engine.plan", "from engine.plan import Chunk"])
def test_a_way_around_the_door_is_found(text):
    found = list(door_violations([planted("server/app.py", text)], frozenset({"Engine"})))

    assert [violation.startswith("server/app.py:1:") for violation in found] == [True]


def test_a_name_that_is_not_public_is_found():
    file = planted("server/app.py", "from engine import Engine, Chunk")

    assert list(door_violations([file], frozenset({"Engine"}))) == [
        "server/app.py:1: Chunk is not in engine.__all__"
    ]


def test_a_package_that_loads_its_modules_is_found():
    file = planted("engine/__init__.py", "from engine.errors import EngineError")

    assert list(facade_violations(file)) == [
        "engine/__init__.py:1: engine.errors is loaded by importing the package"
    ]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        pytest.param("engine/cache/pool.py", "from torch import Tensor", id="torch in the pool"),
        pytest.param("engine/cache/stores.py", "import torch.nn", id="a name that only begins alike"),
        pytest.param("engine/text/tokenizer.py", "import transformers", id="transformers anywhere"),
        pytest.param("engine/loop.py", "import fastapi", id="http in the engine"),
        pytest.param("engine/models/loader.py", "import pickle", id="pickles"),
    ],
)
def test_a_library_out_of_place_is_found(path, text):
    found = list(library_violations([planted(path, text)], LIBRARIES))

    assert [violation.startswith(f"{path}:1:") for violation in found] == [True]


@pytest.mark.parametrize(
    "text", ["from . import pool", "from engine.errors import *", "importlib.import_module('torch')"]
)
def test_a_hidden_import_is_found(text):
    assert len(list(style_violations([planted("engine/loop.py", text)]))) == 1


def test_asyncio_in_the_core_half_is_found():
    assert len(list(async_violations([planted("engine/loop.py", "import asyncio")]))) == 1


def test_a_circle_is_found():
    files = [
        planted("engine/cache/pool.py", "from engine.cache.table import BlockTable"),
        planted("engine/cache/table.py", "from engine.cache.pool import CachePool"),
    ]

    assert len(list(cycle_violations(files))) == 1
