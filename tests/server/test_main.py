import logging
import socket
import subprocess
import sys

import pytest

from server.__main__ import main
from tests.support.hollow_checkpoint import write_hollow_checkpoint


@pytest.fixture(autouse=True)
def logging_as_before():
    """`serve` sets up this process's logging; the next test has it back as it was."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.mark.parametrize(
    "arguments",
    [["--help"], ["serve", "--help"], ["chat", "--help"], ["pull", "--help"], ["selftest", "--help"]],
    ids=" ".join,
)
def test_help_ends_with_status_zero(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 0
    assert "usage: ringserve" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["fly"], ["--fly"]], ids=["none", "unknown", "flag"])
def test_an_unknown_command_ends_with_status_two(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)

    assert caught.value.code == 2
    assert "COMMAND" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["serve", "--port", "many"], "--port"),
        (["serve", "--host", "0.0.0.0"], "--no-auth"),
        (["serve", "--fly"], "--fly"),
        (["serve", "--window=0"], "window is 0"),
        (["serve", "/no/such/folder", "--port=0"], "/no/such/folder"),
        (["pull", "/no/such/folder"], "/no/such/folder"),
        (["chat", "--start-timeout-s", "0"], "--start-timeout-s"),
        (["serve", "--log-format=xml"], "log_format is 'xml'"),
        (["serve", "--otlp-endpoint=collector:4317"], "otlp_endpoint is 'collector:4317'"),
        (["selftest", "--drain-pid=1"], "--drain-pid"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_a_bad_setting_is_one_line_and_status_two(arguments, named, capsys):
    status = main(arguments)
    complaint = capsys.readouterr().err

    assert status == 2
    assert complaint.startswith(f"ringserve {arguments[0]}: ")
    assert named in complaint
    assert complaint.count("\n") == 1


def test_an_address_that_is_taken_is_one_line_and_status_one(live, capsys, tmp_path):
    port = live.url.rsplit(":", 1)[1]
    status = main(["serve", str(write_hollow_checkpoint(tmp_path / "m")), f"--port={port}"])

    assert status == 1
    assert "in use" in capsys.readouterr().err


def test_an_interrupted_fetch_ends_without_a_traceback():
    code = (
        "import signal, sys, server.__main__ as command\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # which a shell's background jobs ignore
        "command.resolve = lambda *_, **__: signal.raise_signal(signal.SIGINT)\n"
        "sys.exit(command.main(['pull', 'm']))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )

    assert (ended.returncode, ended.stderr) == (130, "")


def test_pull_tells_where_the_model_is(capsys, tmp_path):
    folder = write_hollow_checkpoint(tmp_path / "m")
    status = main(["pull", str(folder)])

    assert status == 0
    assert capsys.readouterr().out == f"{folder}\n"


def test_chat_with_nobody_ends_with_status_one(capsys):
    assert main(["chat", "--url", "http://127.0.0.1:1"]) == 1


@pytest.mark.parametrize("arguments", ["--help", "serve --port=x"])
def test_help_and_refusals_do_not_load_the_application(arguments):
    code = (
        "import sys\nfrom server.__main__ import main\n"
        f"try:\n    main({arguments.split()!r})\nexcept SystemExit:\n    pass\n"
        "assert not {'fastapi', 'openai', 'torch', 'transformers'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


def test_the_whole_server_loads_no_torch():
    code = (
        "import sys, server.app, server.serving, server.terminal, server.companion\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )

    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, timeout=30)


def test_a_selftest_without_a_server_fails_at_its_first_drill(capsys):
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    status = main(["selftest", "--url", url])

    assert status == 1
    assert capsys.readouterr().out.startswith("FAIL  ready       ConnectError")
