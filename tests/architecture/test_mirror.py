"""tests/ mirrors engine/ and server/ file for file."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tests.architecture.source_tree import expect_none, read_tree


def test_path(source: PurePosixPath) -> PurePosixPath:
    """Where the tests of a module are: those of `__main__` in test_main.py."""
    return PurePosixPath("tests", source.parent, f"test_{source.stem.strip('_')}.py")


test_path.__test__ = False  # not a test, in spite of its name


def untested(sources: Iterable[PurePosixPath], tests: Iterable[PurePosixPath]) -> Iterator[str]:
    known = set(tests)
    for source in sources:
        if source.name != "__init__.py" and test_path(source) not in known:
            yield f"{source}:1: has no tests; they belong into {test_path(source)}"


def orphaned(sources: Iterable[PurePosixPath], tests: Iterable[PurePosixPath]) -> Iterator[str]:
    """Test files of modules that are not there; a package's own are in test_init.py."""
    known = {test_path(source) for source in sources}
    for test in tests:
        if test.name.startswith("test_") and test not in known:
            yield f"{test}:1: tests a module that is not there"


def paths(*folders: str) -> list[PurePosixPath]:
    return [PurePosixPath(file.path) for file in read_tree(*folders)]


def test_every_module_has_its_test_file():
    expect_none(untested(paths("engine", "server"), paths("tests")))


def test_every_test_file_has_its_module():
    expect_none(orphaned(paths("engine", "server"), paths("tests/engine", "tests/server")))


def test_a_module_without_tests_is_found():
    sources = [PurePosixPath("engine/cache/pool.py"), PurePosixPath("engine/cache/__init__.py")]

    assert list(untested(sources, [])) == [
        "engine/cache/pool.py:1: has no tests; they belong into tests/engine/cache/test_pool.py"
    ]


def test_tests_without_a_module_are_found():
    sources = [PurePosixPath("engine/__main__.py"), PurePosixPath("engine/__init__.py")]
    tests = ["test_main.py", "test_init.py", "conftest.py", "test_gone.py"]

    assert list(orphaned(sources, [PurePosixPath("tests/engine", name) for name in tests])) == [
        "tests/engine/test_gone.py:1: tests a module that is not there"
    ]
