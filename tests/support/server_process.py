"""A real server: the command `ringserve serve` as a process of its own, on a loopback port."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

REPOSITORY = Path(__file__).resolve().parents[2]
ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+)")
PATIENCE_S = 60.0


class ServerProcess:
    """A running server, its log so far, and what belongs to it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []
        self._grown = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    @property
    def log(self) -> str:
        return "\n".join(self.lines)

    @property
    def url(self) -> str:
        """Where it listens, once it has said so."""
        return self.wait_line(ADDRESS).group(1)

    def wait_line(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """The first match of `pattern` in the log; waits for it."""
        with self._grown:
            found = self._grown.wait_for(
                lambda: next((m for line in self.lines if (m := pattern.search(line))), None), PATIENCE_S
            )
        assert found, f"{pattern.pattern} is not in the log:\n{self.log}"
        return found

    def get(self, path: str) -> tuple[int, dict[str, object]]:
        """Status and JSON body."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def wait_ready(self) -> None:
        """Poll /ready until it says 200."""
        deadline = time.monotonic() + PATIENCE_S
        while self.get("/ready")[0] != 200:
            assert time.monotonic() < deadline, f"never ready:\n{self.log}"
            assert self.process.poll() is None, f"ended with {self.process.returncode}:\n{self.log}"
            time.sleep(0.05)  # a real process, polled within a bound

    def wait_load(self, **expected: int) -> dict[str, int]:
        """Poll /health until its load has these values."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            load = self.get("/health")[1]["load"]
            assert isinstance(load, dict)
            if all(load[name] == value for name, value in expected.items()):
                return load
            assert time.monotonic() < deadline, f"load stays {load}"
            time.sleep(0.02)

    def engine_pid(self) -> int:
        """The engine process of this moment."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            children = psutil.Process(self.process.pid).children()
            if children:
                return children[0].pid
            assert time.monotonic() < deadline, "no engine process"
            time.sleep(0.02)

    def stop(self, patience_s: float = 30.0) -> int:
        """SIGTERM, and its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(patience_s)
        finally:
            self.process.kill()
            self.process.wait()
            self._reader.join(10)
            assert self.process.stderr is not None
            self.process.stderr.close()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._grown:
                self.lines.append(line.rstrip("\n"))
                self._grown.notify_all()


@contextmanager
def server_process(
    *arguments: str, program: tuple[str, ...] = ("server", "serve")
) -> Iterator[ServerProcess]:
    """`ringserve serve --port 0 ...`, or another program that does the same, stopped at the end and reaped.

    Its engine computes on one thread, unless told otherwise: other tests run beside it.
    """
    command = [sys.executable, "-m", *program, "--port", "0", "--cpu-threads", "1", *arguments]
    process = subprocess.Popen(
        command,
        cwd=REPOSITORY,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(),
    )
    server = ServerProcess(process)
    try:
        yield server
    finally:
        server.stop()


def _environment() -> dict[str, str]:
    """Ours, without settings of ringserve's; the repository is importable wherever it is not installed."""

    kept = {name: value for name, value in os.environ.items() if not name.startswith("RINGSERVE_")}
    return {**kept, "PYTHONPATH": str(REPOSITORY)}
