"""Logging set-up, the same in both processes: one line per event, on standard error.

A line is text for people, or a JSON object for programs: the words of the message are its `event`, and
what the message names (`tokens=%d`) is a field of that name.
"""

import json
import logging
import re
import sys
from datetime import UTC, datetime

LINE_FORMAT = "%(asctime)s %(levelname)-7s %(process)d %(name)s: %(message)s"
NOTHING = "-"
"""What stands in a message for a value that is not there; null in JSON."""
_VALUE = re.compile(
    r"(?:(?P<name>\w+)=)?(?P<value>%(?:%|[-+ #0]*\d*(?:\.\d+)?[diouxXeEfFgGcrsa]))(?P<unit>[^\s%()]*)"
)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts, level, logger, pid, event, and the message's own fields.

    logger.info("request finished id=%s tokens=%d", "a", 3)

    {"ts": "2026-01-02T03:04:05.678Z", "level": "info", "logger": "server", "pid": 7,
     "event": "request finished", "id": "a", "tokens": 3}
    """

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its end."""
        event, fields = _split(record)
        when = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        line: dict[str, object] = {
            "ts": when.replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "event": event,
        }
        line.update({name if name not in line else f"{name}_": value for name, value in fields.items()})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure_logging(level: str, log_format: str = "text") -> None:
    """Send this process's log lines of `level` (debug, info, warning, error) and above to stderr.

    `log_format` is text or json. Called once, at the top of each process; calling it again replaces
    the handler.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else logging.Formatter(LINE_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())


def shown_ms(seconds: float | None) -> float | str:
    """A duration as messages show it, in milliseconds to a tenth; `-` for None."""
    return NOTHING if seconds is None else round(1000 * seconds, 1)


def _split(record: logging.LogRecord) -> tuple[str, dict[str, object]]:
    """The words of a message, and the values that it names; a message of another kind is all words."""
    template = str(record.msg)
    values = record.args if isinstance(record.args, tuple) else ()
    conversions = [found for found in _VALUE.finditer(template) if found["value"] != "%%"]
    if len(conversions) != len(values):
        return record.getMessage(), {}
    fields: dict[str, object] = {}
    words, position = [], 0
    for found, value in zip(conversions, values, strict=True):
        words.append(template[position : found.start()])
        position = found.end()
        if found["name"]:
            fields[found["name"]] = _plain(value, found["value"], found["unit"])
        else:
            words.append(f"{found['value'] % value}{found['unit']}")
    words.append(template[position:])
    return " ".join("".join(words).replace("%%", "%").split()), fields


def _plain(value: object, conversion: str, unit: str) -> object:
    """A named value as JSON has it: a number stays one unless the message gives it a unit."""
    if unit:
        return f"{conversion % value}{unit}"
    if value == NOTHING:
        return None
    if isinstance(value, float):
        return float(conversion % value) if conversion[-1] in "eEfFgG" else value
    return value if value is None or isinstance(value, bool | int | str) else str(value)
