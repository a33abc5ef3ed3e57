"""What the images are made of, read from the Dockerfile; and its installation, carried out."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from engine import ConfigError
from server.settings import ENV_PREFIX, Settings
from tests.packaging.image import ROOT, copied_files, last, lineage, read_stages, root_image

TARGETS = ("cpu", "cuda")
BUILDERS = ("build-cpu", "build-cuda")
ENVIRONMENT = "/opt/ringserve"
BUILD_TOOLS = re.compile(
    r"\b(apt|apt-get|apk|gcc|g\+\+|make|cmake|build-essential|python3-dev|pip install)\b"
)

DOCKERFILE = (ROOT / "Dockerfile").read_text("utf-8")
DOCKERIGNORE = (ROOT / ".dockerignore").read_text("utf-8")
STAGES = read_stages(DOCKERFILE)


def final(target):
    return list(lineage(STAGES, target))


def without_settings():
    """This process's environment without what would configure a server, or lead Python elsewhere."""
    ours = (ENV_PREFIX, "PYTHON")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def tool(name):
    """An executable of the development environment, activated or not."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert found, f"{name} is missing; install the project with its extra `dev`"
    return found


def test_the_linter_has_nothing_to_say():
    run = subprocess.run(
        [tool("hadolint"), "--no-color", ROOT / "Dockerfile"], capture_output=True, text=True, check=False
    )

    assert (run.stdout, run.stderr, run.returncode) == ("", "", 0)


def test_the_default_target_is_the_one_for_cpus():
    assert list(STAGES)[-1] == "cpu"
    assert set(TARGETS) < set(STAGES)


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_is_slim_and_without_build_tools(target):
    """But for the C compiler with which triton makes the launchers of its kernels on a GPU."""
    steps = [one.value for one in final(target) if one.name == "RUN"]
    with_tools = [step for step in steps if BUILD_TOOLS.search(step)]

    assert re.fullmatch(r"python:3\.\d+-slim", root_image(STAGES, target))
    assert len(with_tools) == (target == "cuda")
    assert all("--no-install-recommends gcc libc6-dev &&" in " ".join(step.split()) for step in with_tools)
    assert [one.value for one in final(target) if one.name in ("COPY", "ADD") and not one.flag("from")] == []


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_runs_as_an_ordinary_user_with_a_home_and_a_cache_folder(target):
    user = last(final(target), "USER").value.split(":")[0]
    made = next(one.value for one in final(target) if one.name == "RUN" and "useradd" in one.value)
    variables = dict(word.split("=", 1) for one in final(target) if one.name == "ENV" for word in one.words)

    assert user.isdigit()
    assert int(user) >= 1000
    assert f"useradd --uid {user}" in made
    assert "--create-home" in made
    assert f"--owner={user} --group={user} --mode=0755 {variables['RINGSERVE_CACHE_DIR']}" in made


@pytest.mark.parametrize("target", TARGETS)
def test_the_demo_model_is_fetched_by_the_user_who_will_read_it(target):
    names = [(one.name, one.value) for one in final(target)]

    pulls = [index for index, entry in enumerate(names) if entry == ("RUN", "ringserve pull")]
    users = [index for index, (name, _) in enumerate(names) if name == "USER"]
    copies = [index for index, (name, value) in enumerate(names) if name == "COPY" and ENVIRONMENT in value]
    assert len(pulls) == 1
    assert max(users + copies) < pulls[0]


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_takes_its_environment_from_its_own_builder(target):
    (copy,) = (one for one in final(target) if one.name == "COPY")

    assert copy.flag("from") == f"build-{target}"
    assert copy.words == [ENVIRONMENT, ENVIRONMENT]
    assert root_image(STAGES, f"build-{target}") == root_image(STAGES, target).removesuffix("-slim")


@pytest.mark.parametrize("target", TARGETS)
def test_an_image_says_where_and_how_it_serves(target):
    assert json.loads(last(final(target), "ENTRYPOINT").value) == ["ringserve"]
    assert json.loads(last(final(target), "CMD").value) == ["serve", "--host", "0.0.0.0"]
    assert last(final(target), "EXPOSE").value == str(Settings.model_fields["port"].default)
    assert last(final(target), "STOPSIGNAL").value == "SIGTERM"


def test_the_default_command_is_refused_without_a_key(monkeypatch):
    _, *arguments = json.loads(last(final("cpu"), "CMD").value)
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)

    with pytest.raises(ConfigError, match="RINGSERVE_API_KEY"):
        Settings.from_command_line(arguments)


def test_the_default_command_is_taken_with_a_key(monkeypatch):
    _, *arguments = json.loads(last(final("cpu"), "CMD").value)
    monkeypatch.setenv("RINGSERVE_API_KEY", "secret")

    assert Settings.from_command_line(arguments).host == "0.0.0.0"


def test_every_variable_of_ours_is_a_setting():
    named = set(re.findall(rf"\b{ENV_PREFIX}([A-Z_]+)", DOCKERFILE))

    assert {name.lower() for name in named} - set(Settings.model_fields) == set()


class Answer(BaseHTTPRequestHandler):
    """Answers `/health` with the status of its server, all else with 404."""

    def do_GET(self):
        self.send_response(self.server.status if self.path == "/health" else 404)
        self.end_headers()

    def log_message(self, *arguments):
        """Stay silent."""


@pytest.mark.parametrize(("status", "is_healthy"), [(200, True), (503, False), (None, False)])
def test_the_health_check_asks_the_server(status, is_healthy):
    value = last(final("cpu"), "HEALTHCHECK").value
    _, *arguments = json.loads(value[value.index("CMD") + len("CMD") :])
    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        server.status = status
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        if status is None:
            server.server_close()
        else:
            thread.start()
        variables = {**without_settings(), "RINGSERVE_PORT": str(server.server_port)}
        run = subprocess.run(
            [sys.executable, *arguments], env=variables, capture_output=True, timeout=30, check=False
        )
        if status is not None:
            server.shutdown()
            thread.join()

    assert (run.returncode == 0) is is_healthy


def copies(builder):
    return [one for one in lineage(STAGES, builder) if one.name == "COPY"]


@pytest.mark.parametrize("builder", BUILDERS)
def test_every_source_of_a_copy_is_there_and_reaches_the_build(builder):
    for copy in copies(builder):
        for source in copy.words[:-1]:
            assert (ROOT / source).exists(), f"Dockerfile:{copy.line}: {source} is not there"
        assert list(copied_files(copy, DOCKERIGNORE)), (
            f"Dockerfile:{copy.line}: .dockerignore lets nothing through"
        )


def test_the_build_is_given_all_sources_and_nothing_else():
    given = {path for copy in copies("build-cpu") for path in copied_files(copy, DOCKERIGNORE)}
    sources = {
        path.relative_to(ROOT).as_posix()
        for name in ("engine", "server")
        for path in (ROOT / name).rglob("*")
        if path.suffix in (".py", ".cpp", ".h")
    }

    assert {str(path) for path in given} == sources | {"pyproject.toml", "setup.py", "README.md", "LICENSE"}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The environment that the steps of `build-cpu` make, in a folder of its own.

    pip's own index serves as well as the one named for CPU wheels, so the test needs no second one.
    """
    here = tmp_path_factory.mktemp("image")
    place, work = here / "opt", here / "src"
    work.mkdir()
    for step in lineage(STAGES, "build-cpu"):
        if step.name == "COPY":
            for path in copied_files(step, DOCKERIGNORE):
                target = work / path
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / path, target)
        elif step.name == "RUN":
            command = shlex.join(step.words).replace(ENVIRONMENT, str(place))
            command = re.sub(r"--extra-index-url \S+ ", "", command)
            command = re.sub(r"^python ", f"{shlex.quote(sys.executable)} ", command)
            subprocess.run(shlex.split(command), cwd=work, env=without_settings(), check=True, timeout=900)
    shutil.rmtree(work)
    yield place
    shutil.rmtree(here)  # hundreds of megabytes


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("command", ["--help", "serve --help", "chat --help", "pull --help"])
def test_the_installed_command_tells_how_it_is_used(installed, tmp_path, command):
    run = subprocess.run(
        [installed / "bin" / "ringserve", *command.split()],
        cwd=tmp_path,
        env=without_settings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert run.stdout.startswith("usage: ringserve")


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_installed_modules_are_complete(installed, tmp_path):
    script = "import engine.build, server.app, server.serving, server.terminal, sys; print(sys.modules['engine'].__file__)"

    run = subprocess.run(
        [installed / "bin" / "python", "-P", "-c", script],
        cwd=tmp_path,
        env=without_settings(),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )

    assert Path(run.stdout.strip()).is_relative_to(installed)
    subprocess.run([installed / "bin" / "pip", "check"], env=without_settings(), check=True, timeout=60)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_installed_command_is_refused_without_a_key(installed, tmp_path):
    entrypoint = json.loads(last(final("cpu"), "ENTRYPOINT").value)
    arguments = json.loads(last(final("cpu"), "CMD").value)

    run = subprocess.run(
        [installed / "bin" / entrypoint[0], *entrypoint[1:], *arguments],
        cwd=tmp_path,
        env=without_settings(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert run.returncode == 2
    assert "RINGSERVE_API_KEY" in run.stderr


@pytest.mark.slow
@pytest.mark.demo_model
@pytest.mark.timeout(1200)
def test_the_installed_command_fetches_the_demo_model(installed, tmp_path):
    variables = {**without_settings(), "RINGSERVE_CACHE_DIR": str(tmp_path)}

    run = subprocess.run(
        [installed / "bin" / "ringserve", "pull"],
        cwd=tmp_path,
        env=variables,
        stdout=subprocess.PIPE,
        text=True,
        timeout=600,
        check=True,
    )

    file = Path(run.stdout.splitlines()[-1])
    assert file.is_relative_to(tmp_path)
    assert file.stat().st_mode & 0o444 == 0o444
