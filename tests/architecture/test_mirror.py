"""tests/ mirrors engine/ and server/ file for file; it may hold more."""

from collections.abc import Iterable, Iterator
from pathlib import PurePosixPath

from tests.architecture.source_tree import expect_none, read_tree


def home_of_tests(source: PurePosixPath) -> PurePosixPath:
    """Where the tests of a module are: those of `__main__` in test_main.py."""
    return PurePosixPath("tests", source.parent, f"test_{source.stem.strip('_')}.py")


def untested(sources: Iterable[PurePosixPath], tests: Iterable[PurePosixPath]) -> Iterator[str]:
    known = set(tests)
    for source in sources:
        if source.name != "__init__.py" and home_of_tests(source) not in known:
            yield f"{source}:1: has no tests; they belong into {home_of_tests(source)}"


def paths(*folders: str) -> list[PurePosixPath]:
    return [PurePosixPath(file.path) for file in read_tree(*folders)]


def test_every_module_has_its_test_file():
    expect_none(untested(paths("engine", "server"), paths("tests")))


def test_a_module_without_tests_is_found():
    sources = [PurePosixPath("engine/cache/pool.py"), PurePosixPath("engine/cache/__init__.py")]

    assert list(untested(sources, [])) == [
        "engine/cache/pool.py:1: has no tests; they belong into tests/engine/cache/test_pool.py"
    ]
