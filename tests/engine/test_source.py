import json
import subprocess
import sys
from pathlib import Path

import pytest

from engine.errors import CheckpointError, ConfigError
from engine.source import DEMO_MODEL, ModelSource, fetch_demo_model, resolve
from tests.support.hub import loopback_hub

ROOT = Path(__file__).parents[2]
REPOSITORIES = {
    "org/safe": {
        "config.json": b"{}",
        "model.safetensors": b"weights",
        "tokenizer.json": b"{ }",
        "chat_template.jinja": b"x",
        "consolidated.safetensors": b"the same weights",
        "pytorch_model.bin": b"pickle",
        "original/model.safetensors": b"the same weights",
        "run.py": b"code",
    },
    "org/single-gguf": {"README.md": b"x", "small.gguf": b"GGUF"},
    "org/many-ggufs": {"a.gguf": b"GGUF", "b.gguf": b"GGUF"},
    "org/pickled": {"config.json": b"{}", "pytorch_model.bin": b"pickle"},
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder that looks like a model in Hugging Face format."""
    model = tmp_path / "my-model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"")
    return model


def resolve_from_hub(address: str, home: Path, *names: str) -> list[str]:
    """What `resolve` finds for each name, or the error it raises, in a process with a hub of its own."""
    program = (
        "import sys\nfrom pathlib import Path\nfrom engine.errors import ConfigError\n"
        "from engine.source import resolve\n"
        "for name in sys.argv[1:]:\n"
        "    try:\n        source = resolve(name, cache_dir=Path('none'))\n"
        "        print(source.model_id, source.path)\n"
        "    except ConfigError as error:\n        print(type(error).__name__, error)"
    )
    hub = {"HF_ENDPOINT": address, "HF_HOME": str(home), "HF_HUB_DISABLE_TELEMETRY": "1", "PATH": ""}
    command = [sys.executable, "-c", program, *names]
    ended = subprocess.run(command, cwd=ROOT, env=hub, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.splitlines()


def test_a_folder_is_called_by_its_name(folder: Path, tmp_path: Path) -> None:
    assert resolve(str(folder), cache_dir=tmp_path) == ModelSource(path=folder, model_id="my-model")


def test_a_link_to_a_folder_is_called_by_its_own_name(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "alias").symlink_to(folder)

    assert resolve(str(tmp_path / "alias"), cache_dir=tmp_path).model_id == "alias"


@pytest.mark.parametrize("name", [".", "../my-model", "sub/.."])
def test_a_folder_without_a_name_of_its_own_is_called_as_it_is(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "sub").mkdir()
    monkeypatch.chdir(folder)

    assert resolve(name, cache_dir=tmp_path).model_id == "my-model"


def test_a_gguf_file_is_called_by_its_name_without_the_ending(tmp_path: Path) -> None:
    file = tmp_path / "Small.Q4_1.gguf"
    file.write_bytes(b"GGUF")

    assert resolve(str(file), cache_dir=tmp_path) == ModelSource(path=file, model_id="Small.Q4_1")


def test_a_folder_goes_before_a_hub_id_of_the_same_form(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path.parent)

    source = resolve(f"{tmp_path.name}/my-model", cache_dir=tmp_path)

    assert source.model_id == "my-model"


def test_a_folder_without_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json; give a folder in Hugging Face format"):
        resolve(str(tmp_path), cache_dir=tmp_path)


def test_a_folder_of_gguf_files_is_refused_with_their_names(tmp_path: Path) -> None:
    for name in ("b.gguf", "a.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")

    with pytest.raises(CheckpointError, match=r"it holds a\.gguf, b\.gguf: give the path of one file"):
        resolve(str(tmp_path), cache_dir=tmp_path)


def test_a_folder_with_pickled_weights_only_is_refused(folder: Path, tmp_path: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(CheckpointError, match=r"no \*\.safetensors; weights in pickles .* are not read"):
        resolve(str(folder), cache_dir=tmp_path)


def test_a_file_that_is_no_gguf_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "model.bin"
    file.write_bytes(b"pickle")

    with pytest.raises(CheckpointError, match=r"must be a \.gguf"):
        resolve(str(file), cache_dir=tmp_path)


@pytest.mark.parametrize("name", ["no-such-model", "./none", "/none/at/all", "org/none.gguf", "a b/c"])
def test_a_name_that_leads_nowhere_is_refused_with_the_ways_there_are(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=r"folder in Hugging Face format, a \.gguf file, a hub id .*demo model"
    ):
        resolve(name, cache_dir=tmp_path)


def test_a_hub_repository_comes_without_pickles_code_and_second_copies(tmp_path: Path) -> None:
    with loopback_hub(REPOSITORIES) as (address, fetched):
        [found] = resolve_from_hub(address, tmp_path, "org/safe")

    model_id, path = found.split(" ")
    assert model_id == "org/safe"
    assert json.loads((Path(path) / "config.json").read_text()) == {}
    assert sorted(fetched) == ["chat_template.jinja", "config.json", "model.safetensors", "tokenizer.json"]


def test_a_hub_repository_that_was_fetched_needs_no_network(tmp_path: Path) -> None:
    with loopback_hub(REPOSITORIES) as (address, _):
        first = resolve_from_hub(address, tmp_path, "org/safe")

    assert resolve_from_hub(address, tmp_path, "org/safe") == first


def test_a_hub_repository_with_one_gguf_file_is_that_file(tmp_path: Path) -> None:
    with loopback_hub(REPOSITORIES) as (address, fetched):
        [found] = resolve_from_hub(address, tmp_path, "org/single-gguf")

    assert found.startswith("org/single-gguf ")
    assert found.endswith("/small.gguf")
    assert fetched == ["small.gguf"]


def test_a_hub_repository_that_cannot_be_served_says_why(tmp_path: Path) -> None:
    complaints = {
        "org/many-ggufs": "several GGUF files (a.gguf, b.gguf)",
        "org/pickled": "neither safetensors nor GGUF",
        "org/none": "could not be fetched from the hub",
    }

    with loopback_hub(REPOSITORIES) as (address, fetched):
        said = resolve_from_hub(address, tmp_path, *complaints)

    for words, complaint in zip(said, complaints.values(), strict=True):
        assert complaint in words
        assert "demo model smollm2-135m-instruct" in words
    assert fetched == ["config.json"]


def test_a_hub_that_cannot_be_reached_leaves_the_other_ways(tmp_path: Path) -> None:
    with loopback_hub({}) as (address, _):
        pass

    [said] = resolve_from_hub(address, tmp_path, "org/safe")

    assert said.startswith("ConfigError 'org/safe' is no folder here, and could not be fetched from the hub")
    assert "a .gguf file" in said


@pytest.mark.demo_model
def test_the_demo_model_is_found_by_its_name(demo_model_path: Path) -> None:
    cache_dir = demo_model_path.parents[2]

    source = resolve(DEMO_MODEL, cache_dir=cache_dir)

    assert source == ModelSource(path=demo_model_path, model_id="smollm2-135m-instruct")
    assert fetch_demo_model(cache_dir) == demo_model_path
