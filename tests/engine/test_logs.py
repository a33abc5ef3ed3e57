import logging
import re
from collections.abc import Iterator

import pytest

from engine.logs import configure_logging


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
