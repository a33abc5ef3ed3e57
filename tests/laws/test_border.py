"""Law 11: each process loads its own half and nothing heavy; every message survives the border.

What survives pickling is tried, message by message, in `tests/engine/test_messages.py`.
"""

import subprocess
import sys
from pathlib import Path

import pytest

import server

CORE_MODULES = {
    "engine.__main__",
    "engine.batch",
    "engine.build",
    "engine.cache",
    "engine.execution",
    "engine.intake",
    "engine.kernels",
    "engine.layers",
    "engine.loop",
    "engine.model_spec",
    "engine.models",
    "engine.plan",
    "engine.scheduling",
}
TOO_HEAVY = {"torch", "transformers"}
FRONT_MODULES = {
    "engine.engine",
    "engine.engine_process",
    "engine.open_requests",
    "engine.signs_of_life",
    "engine.stream",
    "engine.supervisor",
    "engine.text",
}


def loaded_by(code: str) -> set[str]:
    """Names of the modules that a new interpreter has loaded after `code`, and of their packages."""
    script = f"{code}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    names = done.stdout.split()
    return {
        ".".join(parts[:end])
        for name in names
        for parts in [name.split(".")]
        for end in range(1, len(parts) + 1)
    }


def server_modules() -> list[str]:
    root = Path(server.__file__).parent
    paths = sorted(path for path in root.rglob("*.py") if path.name != "__main__.py")
    parts = [path.relative_to(root.parent).with_suffix("").parts for path in paths]
    return [".".join(part for part in found if part != "__init__") for found in parts]


def test_the_engines_front_half_loads_no_core_module_and_nothing_heavy():
    loaded = loaded_by("import engine\nfor name in engine.__all__: getattr(engine, name)")

    assert loaded >= FRONT_MODULES
    assert loaded & (CORE_MODULES | TOO_HEAVY) == set()


def test_all_of_the_server_loads_no_core_module_and_nothing_heavy():
    loaded = loaded_by("\n".join(f"import {name}" for name in server_modules()))

    assert "server.routes" in loaded
    assert loaded & (CORE_MODULES | TOO_HEAVY) == set()


@pytest.mark.parametrize("module", ["engine.messages", "engine.channel", "engine.config", "engine.logs"])
def test_what_both_halves_share_loads_neither(module: str):
    loaded = loaded_by(f"import {module}")

    assert loaded & (CORE_MODULES | FRONT_MODULES | TOO_HEAVY | {"server", "fastapi"}) == set()
