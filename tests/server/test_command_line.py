import pytest
from pydantic import Field

from engine import ConfigError
from server.command_line import Command


class Lamp(Command):
    """A command with one setting."""

    brightness: int = Field(3, ge=0, description="How bright.")


def test_a_flag_goes_before_the_environment_and_that_before_the_default(monkeypatch):
    assert Lamp.from_command_line([]).brightness == 3
    monkeypatch.setenv("RINGSERVE_BRIGHTNESS", "4")

    assert Lamp.from_command_line([]).brightness == 4
    assert Lamp.from_command_line(["--brightness", "5"]).brightness == 5


@pytest.mark.parametrize("arguments", [["--brightness="], ["--brightness", ""]], ids=["joined", "apart"])
def test_an_empty_flag_is_refused_though_an_empty_variable_counts_as_unset(monkeypatch, arguments):
    monkeypatch.setenv("RINGSERVE_BRIGHTNESS", "")

    assert Lamp.from_command_line([]).brightness == 3
    with pytest.raises(ConfigError, match="--brightness is empty"):
        Lamp.from_command_line(arguments)


def test_a_complaint_is_one_line_with_flag_variable_and_value():
    with pytest.raises(ConfigError) as caught:
        Lamp.from_command_line(["--brightness", "-1"])

    assert caught.value.message.startswith("--brightness (RINGSERVE_BRIGHTNESS) is '-1': ")
    assert "\n" not in caught.value.message
