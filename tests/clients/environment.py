"""Where the client packages live: environments in the user's cache folder, each made once.

    python -m tests.clients.environment        makes them beforehand, and shows how it goes

A folder is named after what it was made from, so changed requirements make a new one.
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from server.settings import default_cache_dir

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
CONSTRAINTS = HERE / "constraints.txt"
NODE_PACKAGES = HERE / "scripts" / "package.json"
COMPLETE = "complete"
INSTALL_TIMEOUT_S = 900


def python_environment() -> Path:
    """The Python that has the packages of requirements.txt; made if it is not there."""
    recipe = REQUIREMENTS.read_bytes() + CONSTRAINTS.read_bytes() + sys.version.encode()
    return _made_once("python", recipe, _install_python_packages) / "bin" / "python"


def node_environment() -> Path:
    """A folder whose node_modules holds the packages of package.json; made if it is not there."""
    return _made_once("node", NODE_PACKAGES.read_bytes(), _install_node_packages)


def _made_once(kind: str, recipe: bytes, make: Callable[[Path], None]) -> Path:
    """The folder that `make` fills; one that was left half full is filled again."""
    root = default_cache_dir() / "clients"
    folder = root / f"{kind}-{hashlib.sha256(recipe).hexdigest()[:16]}"
    root.mkdir(parents=True, exist_ok=True)
    with _only_here(root / f"{folder.name}.lock"):
        if not (folder / COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            (folder / COMPLETE).touch()
    return folder


@contextmanager
def _only_here(lock: Path) -> Iterator[None]:
    with lock.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _install_python_packages(folder: Path) -> None:
    _run(sys.executable, "-m", "venv", str(folder))
    install = [str(folder / "bin" / "python"), "-m", "pip", "install", "--disable-pip-version-check"]
    # To compile all of it takes a minute and more; what the scripts import is compiled by the first of them.
    _run(*install, "--no-compile", "--progress-bar", "off", "-r", str(REQUIREMENTS), "-c", str(CONSTRAINTS))


def _install_node_packages(folder: Path) -> None:
    folder.mkdir(parents=True)
    shutil.copy(NODE_PACKAGES, folder)
    _run("npm", "install", "--no-audit", "--no-fund", "--prefix", str(folder))


def _run(*command: str) -> None:
    """Its output is for whoever waits; the environment of this process may name other packages."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    subprocess.run(command, check=True, timeout=INSTALL_TIMEOUT_S, env=kept, stdin=subprocess.DEVNULL)


if __name__ == "__main__":
    python_environment()
    if shutil.which("npm"):
        node_environment()
