"""What the pages tell a reader to type would work: each command is checked, none is left out.

Servers are not started here; README's two set-up lines are carried out by .ci/run and by those who
read them.
"""

import argparse
import doctest
import os
import re
from collections.abc import Iterator, Sequence
from urllib.parse import urlsplit

import pytest
import yaml

from benchmarks.gpu import parser as gpu_parser
from benchmarks.load.__main__ import parser as load_parser
from benchmarks.overload import parser as overload_parser
from benchmarks.side_by_side.__main__ import parser as side_by_side_parser
from benchmarks.side_by_side.servers import Contestant, read_presets
from benchmarks.soak import parser as soak_parser
from benchmarks.window_bound import parser as window_bound_parser
from engine import ConfigError
from server.settings import ENV_PREFIX, ChatSettings, PullSettings, SelftestSettings, Settings
from tests.architecture.routes import routes
from tests.architecture.source_tree import ROOT, expect_none, read_tree
from tests.packaging.documents import Command, Page, read_commands
from tests.packaging.image import read_stages

PAGES = tuple(
    Page(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
)
SUBCOMMANDS = {"serve": Settings, "chat": ChatSettings, "pull": PullSettings, "selftest": SelftestSettings}
IMAGE = "ringserve"
MODULES = frozenset(
    {
        "venv",
        "pytest",
        "benchmarks.gpu",
        "benchmarks.load",
        "benchmarks.side_by_side",
        "benchmarks.window_bound",
        "benchmarks.overload",
        "benchmarks.soak",
    }
)
HARMLESS = frozenset({"cd", "git", "pip", "ruff", "mypy"})
DOCKER_VALUES = frozenset({"-p", "-e", "-v", "--gpus", "--name", "--target", "-t"})
SERVED_BESIDES = frozenset({"GET /openapi.json", "GET /docs"})


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch):
    for name in list(os.environ):
        if name.startswith(ENV_PREFIX):
            monkeypatch.delenv(name)


def complaints(command: Command, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """What would go wrong if a reader typed `command`."""
    yield from unknown_variables(command.variables)
    match command.program:
        case "ringserve":
            for name, value in command.variables.items():
                monkeypatch.setenv(name, value)
            yield from ringserve_complaints(list(command.words[1:]))
        case "docker":
            yield from docker_complaints(command.words[1:], monkeypatch)
        case "curl":
            yield from curl_complaints(command.words[1:])
        case "python" | "python3":
            yield from python_complaints(command.words[1:])
        case "" | "export":
            yield from unknown_variables(word.partition("=")[0] for word in command.words[1:])
        case program if program in HARMLESS:
            return
        case program:
            if not os.access(ROOT / command.words[0], os.X_OK):
                yield f"no test knows what {program!r} does"


def unknown_variables(names) -> Iterator[str]:
    known = {f"{ENV_PREFIX}{field}".upper() for field in Settings.model_fields}
    for name in names:
        if name.startswith(ENV_PREFIX) and name not in known:
            yield f"{name} is no setting"


def ringserve_complaints(arguments: list[str]) -> Iterator[str]:
    """Parse it as the program does, without doing it; `--help` ends the parsing."""
    if arguments == ["--help"]:
        return
    if not arguments or arguments[0] not in SUBCOMMANDS:
        yield f"ringserve has no command {arguments[:1]}"
        return
    try:
        SUBCOMMANDS[arguments[0]].from_command_line(arguments[1:])
    except ConfigError as error:
        yield f"ringserve refuses it: {error}"
    except SystemExit as end:
        if end.code:
            yield f"ringserve refuses it with status {end.code}"


def docker_complaints(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    match words:
        case ("build", *options):
            stages = read_stages((ROOT / "Dockerfile").read_text("utf-8"))
            target = options[options.index("--target") + 1] if "--target" in options else "cpu"
            if target not in stages:
                yield f"the Dockerfile has no target {target}"
        case ("run", *options):
            yield from docker_run_complaints(options, monkeypatch)
        case ("compose", "up", *services):
            known = yaml.safe_load((ROOT / "compose.yaml").read_text("utf-8"))["services"]
            yield from (f"compose.yaml has no service {name}" for name in services if name not in known)
        case _:
            yield f"no test knows what docker {words[0]} does"


def docker_run_complaints(options: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The image's own command stands where none is given after its name."""
    variables: list[str] = []
    while options and options[0].startswith("-"):
        flag, *options = options
        if flag in DOCKER_VALUES:
            value, *options = options
            variables += [value] if flag == "-e" else []
    if not options or options[0].split(":")[0] != IMAGE:
        yield f"docker run does not name the image {IMAGE}"
        return
    names = dict(variable.partition("=")[::2] for variable in variables)
    yield from unknown_variables(names)
    for name, value in names.items():
        monkeypatch.setenv(name, value or "given")
    yield from ringserve_complaints(options[1:] or ["serve", "--host", "0.0.0.0"])


def curl_complaints(words: tuple[str, ...]) -> Iterator[str]:
    method = "POST" if {"-d", "--data", "--json"} & set(words) else "GET"
    known = {*routes(read_tree("server/routes")), *SERVED_BESIDES}
    for word in words:
        if word.startswith("http"):
            path = urlsplit(word).path
            if not any(fits(route, f"{method} {path}") for route in known):
                yield f"{method} {path} is no route"


def fits(route: str, wanted: str) -> bool:
    return re.fullmatch(re.escape(route).replace(r"\{\}", ".+"), wanted) is not None


def python_complaints(words: tuple[str, ...]) -> Iterator[str]:
    if words[:1] != ("-m",) or words[1] not in MODULES:
        yield f"no test knows what python {' '.join(words[:2])} does"
    elif words[1] == "benchmarks.load":
        yield from parse_complaints(load_parser(), words[2:])
    elif words[1] == "benchmarks.side_by_side":
        yield from parse_complaints(side_by_side_parser(), words[2:])
        yield from contestant_complaints(words[2:])
    elif words[1] == "benchmarks.overload":
        yield from parse_complaints(overload_parser(), words[2:])
    elif words[1] == "benchmarks.soak":
        yield from parse_complaints(soak_parser(), words[2:])
    elif words[1] == "benchmarks.gpu":
        yield from parse_complaints(gpu_parser(["hardware"]), words[2:])
    elif words[1] == "benchmarks.window_bound":
        yield from parse_complaints(window_bound_parser(), words[2:])
    elif words[1] == "pytest":
        paths = [word.split("::")[0] for word in words[2:] if "/" in word]
        yield from (f"{path} is not there" for path in paths if not (ROOT / path).exists())


def parse_complaints(parser: argparse.ArgumentParser, words: Sequence[str]) -> Iterator[str]:
    try:
        parser.parse_args(words)
    except SystemExit as end:
        yield f"{parser.prog} refuses it with status {end.code}"


def contestant_complaints(words: Sequence[str]) -> Iterator[str]:
    """What the presets say to the servers that are named."""
    for text in side_by_side_parser().parse_args(words).servers:
        try:
            Contestant.read(text, read_presets())
        except ValueError as error:
            yield str(error)


def test_the_pages_are_read():
    assert {"README.md", "CONTRIBUTING.md", "docs/architecture.md"} <= {page.name for page in PAGES}
    assert sum(1 for page in PAGES for _ in page.commands()) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_would_work(page, monkeypatch):
    expect_none(
        f"{page.name}:{command.line}: {complaint}"
        for command in page.commands()
        for complaint in complaints(command, monkeypatch)
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_command_named_in_prose_would_work(page):
    """`ringserve pull MODEL` in a sentence; an ellipsis or a value in capitals stands for the reader's own."""
    named = re.findall(r"`(?:\.venv/bin/)?ringserve ([^`]+)`", page.prose)

    expect_none(
        f"{page.name}: `ringserve {arguments}`: {complaint}"
        for arguments in named
        for complaint in ringserve_complaints(arguments.replace(" …", "").split())
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_between_pages_leads_somewhere(page):
    for link in page.links:
        path, _, anchor = link.partition("#")
        if urlsplit(link).scheme:
            continue
        target = (ROOT / page.name).parent / path if path else ROOT / page.name

        assert target.exists(), f"{page.name}: {link} is not there"
        if anchor:
            assert anchor in Page(path, target.read_text("utf-8")).anchors, (
                f"{page.name}: {link} has no such heading"
            )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_python_session_gives_what_is_shown(page):
    session = doctest.DocTestParser().get_doctest(page.text, {}, page.name, page.name, 0)
    runner = doctest.DocTestRunner(verbose=False)

    assert runner.run(session).failed == 0


@pytest.mark.parametrize("marker", ["serve-command", "test-command"])
def test_readmes_set_up_commands_are_one_line_each_and_complete(marker):
    (block,) = re.findall(rf"^<!-- {marker} -->\n```sh\n(.*?)\n```$", PAGES[0].text, re.MULTILINE | re.DOTALL)

    commands = list(read_commands(block))

    assert "\n" not in block
    assert commands[0].words[:3] == ("python3", "-m", "venv")
    assert commands[1].program == "pip"


@pytest.mark.parametrize(
    "line",
    [
        "ringserve serve --no-such-flag",
        "ringserve launch",
        "ringserve serve --host 0.0.0.0",
        "RINGSERVE_PROT=1 ringserve serve",
        "docker run -p 8000:8000 ringserve",
        "docker run -e RINGSERVE_KEY=1 ringserve --version",
        "docker build --target tpu .",
        "docker compose up tpu",
        "curl http://127.0.0.1:8000/v1/chat",
        "curl http://127.0.0.1:8000/v1/completions",
        "export RINGSERVE_PROT=1",
        "python3 -m pytest tests/nowhere",
        "make install",
    ],
)
def test_a_command_that_would_not_work_is_found(line, monkeypatch):
    (command,) = read_commands(line)

    assert list(complaints(command, monkeypatch))


@pytest.mark.parametrize(
    "line",
    [
        "ringserve serve --help",
        "ringserve serve model.gguf --window 256",
        "RINGSERVE_API_KEY=k ringserve serve --host 0.0.0.0",
        "docker run --gpus all -e RINGSERVE_API_KEY=k ringserve:cuda serve --host 0.0.0.0 --port 9000",
        "docker compose up gpu",
        "curl http://127.0.0.1:8000/v1/models/a/b",
        "curl http://127.0.0.1:8000/v1/completions -d '{}'",
    ],
)
def test_a_command_that_would_work_is_let_through(line, monkeypatch):
    (command,) = read_commands(line)

    assert list(complaints(command, monkeypatch)) == []
