import json
import logging
import re
from collections.abc import Iterator

import pytest

from engine.logs import configure_logging, shown_ms


@pytest.fixture(autouse=True)
def root_logger() -> Iterator[logging.Logger]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield root
    root.handlers[:] = handlers
    root.setLevel(level)


def test_an_event_is_one_line_on_standard_error(capsys: pytest.CaptureFixture[str]):
    configure_logging("info")

    logging.getLogger("engine.some").info("things happened count=%d", 3)

    line = capsys.readouterr().err
    assert re.fullmatch(r"\S+ \S+ INFO    \d+ engine\.some: things happened count=3\n", line)


@pytest.mark.parametrize(
    ("level", "shown"),
    [("debug", "DIWE"), ("info", "IWE"), ("warning", "WE"), ("error", "E")],
)
def test_lines_below_the_level_are_left_out(capsys: pytest.CaptureFixture[str], level: str, shown: str):
    configure_logging(level)

    logger = logging.getLogger("engine.some")
    for letter, write in zip("DIWE", (logger.debug, logger.info, logger.warning, logger.error), strict=True):
        write(letter)

    assert [line[-1] for line in capsys.readouterr().err.splitlines()] == list(shown)


def test_setting_up_again_replaces_and_does_not_double(
    capsys: pytest.CaptureFixture[str], root_logger: logging.Logger
):
    configure_logging("info")
    configure_logging("info")

    logging.getLogger("engine.some").info("once")

    assert capsys.readouterr().err.count("once") == 1
    assert len(root_logger.handlers) == 1


def json_line(capsys: pytest.CaptureFixture[str], message: str, *values: object) -> dict[str, object]:
    configure_logging("info", "json")
    logging.getLogger("engine.some").info(message, *values)
    (line,) = capsys.readouterr().err.splitlines()
    return json.loads(line)


def test_json_has_the_words_as_event_and_the_values_as_fields(capsys: pytest.CaptureFixture[str]):
    line = json_line(capsys, "request finished id=%s tokens=%d ms=%.1f path=%r", "a b", 3, 2.345, "/x")

    assert (line["level"], line["logger"], line["event"]) == ("info", "engine.some", "request finished")
    assert (line["id"], line["tokens"], line["ms"], line["path"]) == ("a b", 3, 2.3, "/x")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line["ts"])
    assert isinstance(line["pid"], int)


@pytest.mark.parametrize(
    ("message", "values", "event", "fields"),
    [
        ("nothing named", (), "nothing named", {}),
        ("ready in %d s, all %d%% done", (3, 7), "ready in 3 s, all 7% done", {}),
        ("memory weights=%.0fMiB left", (92.4,), "memory left", {"weights": "92MiB"}),
        ("queue_ms=%s", ("-",), "", {"queue_ms": None}),
        ("window=%s", (None,), "", {"window": None}),
        ("where=%s", (("a", 1),), "", {"where": "('a', 1)"}),
        ("level=%s up", ("high",), "up", {"level_": "high"}),
        ("literal name=fixed", (), "literal name=fixed", {}),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_every_message_becomes_an_object(capsys, message, values, event, fields):
    line = json_line(capsys, message, *values)
    own = {name: value for name, value in line.items() if name not in ("ts", "logger", "pid")}

    assert own == {"level": "info", "event": event, **fields}


def test_a_traceback_is_a_field_of_the_same_line(capsys: pytest.CaptureFixture[str]):
    configure_logging("info", "json")
    try:
        int("planted")
    except ValueError:
        logging.getLogger("engine.some").exception("it failed id=%s", "a")
    (line,) = capsys.readouterr().err.splitlines()
    fields = json.loads(line)

    assert (fields["event"], fields["id"], fields["level"]) == ("it failed", "a", "error")
    assert "ValueError: invalid literal" in fields["exception"]


@pytest.mark.parametrize(("seconds", "shown"), [(None, "-"), (0.01234, 12.3), (2, 2000)])
def test_a_duration_is_shown_in_milliseconds(seconds, shown):
    assert shown_ms(seconds) == shown
