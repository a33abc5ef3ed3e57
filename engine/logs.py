"""Logging set-up, the same in both processes: one line per event, on standard error."""

import logging
import sys

LINE_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"


def configure_logging(level: str) -> None:
    """Send this process's log lines of `level` (debug, info, warning, error) and above to stderr.

    Called once, at the top of each process; calling it again replaces the handler.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter(LINE_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
