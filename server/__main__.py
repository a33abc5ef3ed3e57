"""The command `ringserve`, also `python -m server`: serve, chat, pull, selftest.

Each subcommand loads what it needs only when it runs, so that help and refusals come at once.
"""

import argparse
import sys
from collections.abc import Sequence

from engine import ConfigError, configure_logging, resolve
from server.settings import ChatSettings, PullSettings, SelftestSettings, Settings

EXIT_FAILED, EXIT_MISCONFIGURED, EXIT_INTERRUPTED = 1, 2, 130
SUMMARIES = {
    "serve": "serve a model over HTTP with OpenAI's API",
    "chat": "chat in the terminal with a running server, or with one started for it",
    "pull": "fetch a model into the cache folder, so that later starts need no network",
    "selftest": "try the promises of a running server",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 failed, 2 a setting cannot work."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    command = _parser().parse_args(given[:1]).command
    run = {"serve": _serve, "chat": _chat, "pull": _pull, "selftest": _selftest}[command]
    try:
        return run(given[1:])
    except ConfigError as error:
        return _complain(command, error.message, EXIT_MISCONFIGURED)
    except OSError as error:
        return _complain(command, str(error), EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _serve(arguments: list[str]) -> int:
    settings = Settings.from_command_line(arguments)
    configure_logging(settings.log_level, settings.log_format)
    from server.serving import serve  # noqa: PLC0415  see the module docstring

    return serve(settings)


def _chat(arguments: list[str]) -> int:
    settings = ChatSettings.from_command_line(arguments)
    from server.companion import CompanionError, server_for_chat  # noqa: PLC0415  see the module docstring
    from server.terminal import chat_at  # noqa: PLC0415  see the module docstring

    try:
        with server_for_chat(settings, sys.stdout) as url:
            return 0 if chat_at(url, settings.first_api_key, settings.system) else EXIT_FAILED
    except CompanionError as error:
        return _complain("chat", str(error), EXIT_FAILED)


def _pull(arguments: list[str]) -> int:
    settings = PullSettings.from_command_line(arguments)
    source = resolve(settings.model, cache_dir=settings.cache_dir)
    sys.stdout.write(f"{source.path}\n")
    return 0


def _selftest(arguments: list[str]) -> int:
    settings = SelftestSettings.from_command_line(arguments)
    from server.selftest.drills import drills  # noqa: PLC0415  see the module docstring
    from server.selftest.run import run_drills  # noqa: PLC0415  see the module docstring
    from server.selftest.target import Target  # noqa: PLC0415  see the module docstring

    target = Target(settings.url, settings.first_api_key, settings.timeout_s)
    try:
        chosen = drills(settings.requests, settings.drain_pid)
        return 0 if run_drills(target, chosen, sys.stdout) else EXIT_FAILED
    finally:
        target.close()


def _parser() -> argparse.ArgumentParser:
    lines = "\n".join(f"  {name:10}{summary}" for name, summary in SUMMARIES.items())
    parser = argparse.ArgumentParser(
        prog="ringserve",
        description="An OpenAI-compatible inference server on a shared rolling-buffer cache pool.",
        epilog=f"commands:\n{lines}\n\n'ringserve COMMAND --help' tells what a command may be told.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("command", choices=SUMMARIES, metavar="COMMAND", help=", ".join(SUMMARIES))
    return parser


def _complain(command: str, message: str, status: int) -> int:
    sys.stderr.write(f"ringserve {command}: {message}\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
