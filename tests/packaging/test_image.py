from pathlib import PurePosixPath

import pytest

from tests.packaging.image import is_excluded, last, lineage, read_stages, root_image

DOCKERFILE = """
ARG TAG=3.12
FROM python:${TAG} AS base
RUN --mount=type=cache,target=/c \\
    pip install 'a b' .
USER 7
FROM base AS final
COPY --from=base --chown=7 /a /b
"""


def test_stages_are_read_with_their_bases():
    stages = read_stages(DOCKERFILE)

    assert {name: stage.base for name, stage in stages.items()} == {"base": "python:3.12", "final": "base"}
    assert root_image(stages, "final") == "python:3.12"


def test_a_stage_has_the_instructions_of_its_base():
    made_by = list(lineage(read_stages(DOCKERFILE), "final"))

    assert [(one.name, one.line) for one in made_by] == [("RUN", 4), ("USER", 6), ("COPY", 8)]
    assert last(made_by, "USER").value == "7"


def test_an_instructions_own_flags_are_no_words():
    run, _, copy = lineage(read_stages(DOCKERFILE), "final")

    assert run.words == ["pip", "install", "a b", "."]
    assert (copy.flag("from"), copy.flag("chown"), copy.flag("chmod"), copy.words) == (
        "base",
        "7",
        None,
        ["/a", "/b"],
    )


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("README.md", True),
        ("engine/loop.py", False),
        ("engine/cache/pool.py", False),
        ("engine/cache/__pycache__/pool.pyc", True),
        (".env", True),
        ("other/engine/loop.py", True),
    ],
)
def test_the_last_pattern_that_matches_a_path_or_its_folder_decides(path, expected):
    assert is_excluded(PurePosixPath(path), "# all\n*\n!engine\n\n**/__pycache__\n") is expected
