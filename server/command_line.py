"""`Command`: how settings are read from flags and environment, and how what is wrong is told.

It knows no setting by name but the positional one.
"""

from itertools import zip_longest
from typing import Self

from pydantic import ValidationError
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict, SettingsError

from engine import ConfigError

ENV_PREFIX = "RINGSERVE_"


class Command(BaseSettings):
    """What the settings of all subcommands share: where they are read from, and how they are refused."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_ignore_empty=True,
        frozen=True,
        extra="ignore",
        cli_kebab_case=True,
        cli_implicit_flags="toggle",
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_show_env_vars=True,
        cli_exit_on_error=False,
        defer_build=True,  # of all subcommands, one runs
    )

    @classmethod
    def from_command_line(cls, arguments: list[str]) -> Self:
        """Read `arguments`, then the environment; `--help` prints and exits.

        Raises ConfigError with one line that names the setting, its value and what is wrong.
        """
        _refuse_empty_values(arguments)
        try:
            return CliApp.run(cls, cli_args=arguments)
        except ValidationError as error:
            raise ConfigError(_first_complaint(error)) from error
        except SettingsError as error:
            raise ConfigError(str(error).removeprefix("error parsing CLI: ")) from error


def _refuse_empty_values(arguments: list[str]) -> None:
    """An empty environment variable counts as unset, but `--api-key "$FORGOTTEN"` must not."""
    for argument, following in zip_longest(arguments, arguments[1:]):
        if argument.startswith("--") and (argument.endswith("=") or following == ""):
            raise ConfigError(f"{argument.removesuffix('=')} is empty; give it a value or leave it out")


def _first_complaint(error: ValidationError) -> str:
    complaint = error.errors(include_url=False)[0]
    message = complaint["msg"].removeprefix("Value error, ")
    if not complaint["loc"]:
        return message
    name = str(complaint["loc"][0])
    flag = "MODEL" if name == "model" else f"--{name.replace('_', '-')}"
    shown = "" if name == "api_key" else f" is {complaint['input']!r}"
    return f"{flag} ({ENV_PREFIX}{name.upper()}){shown}: {message}"
