"""`ringserve selftest` against a real server with the demo model, which it drains at the end."""

import subprocess
import sys

import pytest

from tests.support.server_process import REPOSITORY, server_process

pytestmark = [pytest.mark.slow, pytest.mark.demo_model]


def test_every_drill_passes_on_a_windowed_server():
    with server_process("--window", "64", "--max-running", "4", "--max-waiting", "4") as server:
        server.wait_ready()
        flags = ["--url", server.url, "--requests", "20", "--drain-pid", str(server.process.pid)]
        done = subprocess.run(
            [sys.executable, "-m", "server", "selftest", *flags],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        status = server.process.wait(30)

    assert done.stdout.splitlines()[-1] == "8 passed, 0 failed, 0 skipped", done.stdout
    assert (done.returncode, status) == (0, 0)
