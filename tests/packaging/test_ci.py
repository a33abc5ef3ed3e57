"""The check script: sound, and tied to the commands that README gives."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.packaging.image import ROOT

SCRIPT = ROOT / ".ci" / "run"
READ_COMMAND = re.search(
    r"^readme_command\(\) \{.*?^\}$", SCRIPT.read_text("utf-8"), re.DOTALL | re.MULTILINE
)


def readme_command(folder, marker):
    """What the script takes from the README in `folder`."""
    return subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"{READ_COMMAND[0]}\nreadme_command {marker}"],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_script_can_be_run():
    assert os.access(SCRIPT, os.X_OK)
    assert SCRIPT.read_text("utf-8").startswith("#!/usr/bin/env bash\n")


def test_the_shell_linter_has_nothing_to_say():
    linter = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    assert linter, "shellcheck is missing; install the project with its extra `dev`"

    run = subprocess.run([linter, SCRIPT], capture_output=True, text=True, check=False)

    assert (run.stdout, run.returncode) == ("", 0)


@pytest.mark.parametrize("command", ["ruff format --check .", "ruff check .", "mypy server engine"])
def test_the_checks_are_those_of_the_contributors_page(command):
    program, _, arguments = command.partition(" ")

    assert f'/bin/{program}" {arguments}\n' in SCRIPT.read_text("utf-8")
    assert re.search(
        rf"^\S*{re.escape(command)}$", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE
    )


def test_the_test_command_is_readmes():
    run = readme_command(ROOT, "test-command")

    assert (run.returncode, run.stderr) == (0, "")
    assert f"<!-- test-command -->\n```sh\n{run.stdout}```\n" in (ROOT / "README.md").read_text("utf-8")
    assert run.stdout.startswith("python3 -m venv ")
    assert run.stdout.endswith("/bin/python -m pytest\n")


@pytest.mark.parametrize(
    "readme",
    [
        pytest.param("nothing\n", id="no marker"),
        pytest.param("<!-- test-command -->\n```sh\none\ntwo\n```\n", id="two lines"),
        pytest.param("<!-- test-command -->\n```sh\n```\n", id="no line"),
    ],
)
def test_a_readme_without_its_one_line_is_refused(tmp_path, readme):
    (tmp_path / "README.md").write_text(readme)

    run = readme_command(tmp_path, "test-command")

    assert run.returncode == 1
    assert "exactly one line" in run.stderr
