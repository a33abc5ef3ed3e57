"""Servers to be compared: how each is started, asked for its version, found ready and ended."""

import asyncio
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.load.connection import BrokenAnswerError, Host

PRESETS = Path(__file__).with_name("presets.toml")
POLL_S = 0.01
STOP_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Contestant:
    """A server with all its values filled in but the port. `label` names it in tables."""

    label: str
    command: tuple[str, ...]
    version: tuple[str, ...]
    environment: Mapping[str, str]
    dialect: str

    @classmethod
    def read(cls, text: str, presets: Mapping[str, Mapping[str, object]]) -> "Contestant":
        """`PRESET` or `PRESET:name=value,name=value`; the value `label` names it, else it is `text`."""
        name, _, assigned = text.partition(":")
        if name not in presets:
            raise ValueError(f"{name!r} is no preset; there are {', '.join(presets)}")
        preset = _Preset(presets[name])
        given = dict(_assignment(part) for part in assigned.split(",") if part)
        label = given.pop("label", text)
        if unknown := given.keys() - preset.values.keys():
            raise ValueError(
                f"{name} has no value {', '.join(sorted(unknown))}; it has {', '.join(preset.values)}"
            )
        values = {"python": sys.executable, "port": "{port}", **preset.values, **given}
        command = preset.command or shlex.split(values.get("command", ""))
        return cls(
            label=label,
            command=tuple(word.format_map(values) for word in command),
            version=tuple(word.format_map(values) for word in preset.version),
            environment={key: word.format_map(values) for key, word in preset.environment.items()},
            dialect=preset.dialect,
        )

    def ask_version(self) -> str:
        """What its version command says."""
        if not self.version:
            return "not told"
        answer = subprocess.run(
            self.version, env=os.environ | self.environment, capture_output=True, text=True, check=False
        )
        lines = (answer.stdout + answer.stderr).splitlines()
        return next((line for line in lines if "version" in line.lower()), lines[-1] if lines else "not told")


class _Preset:
    """A table of presets.toml, or of a file like it."""

    def __init__(self, table: Mapping[str, object]) -> None:
        text = json.loads(json.dumps(table))
        self.command: list[str] = text["command"]
        self.version: list[str] = text.get("version", [])
        self.dialect: str = text.get("dialect", "openai")
        self.values: dict[str, str] = text.get("values", {})
        self.environment: dict[str, str] = text.get("environment", {})


def read_presets(path: Path | None = None) -> dict[str, Mapping[str, object]]:
    """The built-in presets, and those of the file at `path` over them."""
    found = tomllib.loads(PRESETS.read_text("utf-8"))
    if path is not None:
        found |= tomllib.loads(path.read_text("utf-8"))
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A server that has answered; `first_answer_s` is the time from command to that answer."""

    url: str
    pid: int
    first_answer_s: float


@contextmanager
def running(contestant: Contestant, log: Path, patience_s: float) -> Iterator[Running]:
    """Start a server, wait for its first answer, and end it and all it started after the block.

    Its output goes to `log`, whose last lines are told if it does not come up within `patience_s`.
    """
    port = free_port()
    command = [word.replace("{port}", str(port)) for word in contestant.command]
    process = None
    try:
        begin_s = time.perf_counter()
        with log.open("wb") as output, _held_back(signal.SIGTERM, signal.SIGINT):
            process = subprocess.Popen(
                command,
                env=os.environ | contestant.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        url = f"http://127.0.0.1:{port}"
        if not asyncio.run(_answers(url, process, begin_s + patience_s)):
            tail = "\n".join(log.read_text("utf-8", "replace").splitlines()[-20:])
            raise RuntimeError(f"{contestant.label} did not answer; its last lines:\n{tail}")
        yield Running(url=url, pid=process.pid, first_answer_s=time.perf_counter() - begin_s)
    finally:
        if process is not None:
            _end(process)


@contextmanager
def _held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Let these signals act after the block: amid a start they would leave a process that nobody ends."""
    came: list[int] = []
    before = {number: signal.signal(number, lambda number, _: came.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for number in came:
        signal.raise_signal(number)


def free_port() -> int:
    """A TCP port that was free a moment ago."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


async def _answers(url: str, process: subprocess.Popen[bytes], until_s: float) -> bool:
    """Whether the server gives a first token before `until_s`."""
    host = Host(url)
    body: dict[str, object] = {"prompt": "Hello", "max_tokens": 1}
    while time.perf_counter() < until_s and process.poll() is None:
        try:
            if "model" not in body:
                listed = await host.get_json("/v1/models")
                body["model"] = listed["data"][0]["id"]  # type: ignore[index]  # parsed JSON
            status, _ = await host.whole("POST", "/v1/completions", json.dumps(body).encode())
            if status == 200:
                await host.close()
                return True
        except (OSError, BrokenAnswerError, LookupError, TypeError):
            pass  # not listening yet, or loading
        await asyncio.sleep(POLL_S)
    return False


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)  # what it started and left behind
    except ProcessLookupError:
        return


def _assignment(part: str) -> tuple[str, str]:
    name, equals, value = part.partition("=")
    if not equals:
        raise ValueError(f"{part!r} gives no value; write name=value")
    return name, value
