"""Fixtures of the client tests: one real server with the demo model, and each client's environment."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.clients.client_script import SCRIPTS, run_script
from tests.clients.environment import node_environment, python_environment
from tests.support.server_process import server_process

MODEL = "demo"
Ask = Callable[..., dict[str, object]]


@pytest.fixture(scope="session")
def url(demo_model_path: Path) -> Iterator[str]:
    """Address of a real server; float32 and plain kernels, so that its numbers can be compared."""
    options = [
        "--served-model-name",
        MODEL,
        "--dtype",
        "float32",
        "--kernels",
        "reference",
    ]
    with server_process(str(demo_model_path), *options) as server:
        server.wait_ready()
        yield server.url


@pytest.fixture(scope="session")
def client_python(request: pytest.FixtureRequest) -> Path:
    """The Python with the client packages; while it is made, its progress is shown."""
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        return python_environment()


@pytest.fixture(scope="session")
def python_script(client_python: Path, url: str) -> Ask:
    """Runs scripts/NAME.py against the server."""

    def ask(name: str, **arguments: object) -> dict[str, object]:
        return run_script([client_python, SCRIPTS / f"{name}.py"], f"{url}/v1", model=MODEL, **arguments)

    return ask


@pytest.fixture(scope="session")
def node_script(request: pytest.FixtureRequest, url: str) -> Ask:
    """Runs scripts/NAME.mjs against the server."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    with request.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
        folder = node_environment()

    def ask(name: str, **arguments: object) -> dict[str, object]:
        # Node looks for packages beside the script, so the script goes where they are.
        script = shutil.copy(SCRIPTS / f"{name}.mjs", folder)
        return run_script(["node", script], f"{url}/v1", model=MODEL, **arguments)

    return ask
