"""`Hyperparameters`: a checkpoint's numbers under the names of Hugging Face's config.json.

It reads `config.json` and `generation_config.json`, and checks types. GGUF metadata come under the
same names from `gguf_file`, so that a family reads both alike. It knows no family.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from engine.errors import CheckpointError


@dataclass(frozen=True, slots=True, kw_only=True)
class Hyperparameters:
    """Typed access to a checkpoint's values; a wrong one is a CheckpointError that names it.

    A value of null counts as absent. `origin` is the file they come from.
    """

    origin: Path
    values: Mapping[str, object]

    @classmethod
    def load(cls, folder: Path) -> "Hyperparameters":
        """Read a folder in Hugging Face format; `eos_token_ids` unites those of both files."""
        values = _read_json(folder / "config.json")
        generation_file = folder / "generation_config.json"
        generation = _read_json(generation_file) if generation_file.is_file() else {}
        config = cls(origin=folder / "config.json", values=values)
        eos_ids = config.token_ids("eos_token_id")
        eos_ids += cls(origin=generation_file, values=generation).token_ids("eos_token_id")
        return cls(origin=config.origin, values={**values, "eos_token_ids": list(dict.fromkeys(eos_ids))})

    def has(self, key: str) -> bool:
        """Whether there is a value other than null."""
        return self.values.get(key) is not None

    def integer(self, key: str, default: int | None = None) -> int:
        """A whole number of at least 1; without `default` it must be there."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, "it must be a whole number of at least 1")
        return value

    def number(self, key: str, default: float | None = None) -> float:
        """A number above 0; without `default` it must be there."""
        value = self._value(key, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
            raise self.error(key, "it must be a number above 0")
        return float(value)

    def flag(self, key: str, default: bool) -> bool:
        """A truth value."""
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "it must be true or false")
        return value

    def texts(self, key: str) -> tuple[str, ...]:
        """A list of strings; empty when absent."""
        value = self._value(key, [])
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, "it must be a list of strings")
        return tuple(value)

    def token_ids(self, key: str) -> tuple[int, ...]:
        """One token id or a list of them; empty when absent."""
        value = self._value(key, [])
        ids = value if isinstance(value, list) else [value]
        if not all(isinstance(item, int) and not isinstance(item, bool) and item >= 0 for item in ids):
            raise self.error(key, "it must be a token id or a list of them")
        return tuple(ids)

    def section(self, key: str) -> "Hyperparameters | None":
        """A nested object; None when absent."""
        value = self.values.get(key)
        if value is None:
            return None
        if not isinstance(value, dict):
            raise self.error(key, "it must be an object")
        return Hyperparameters(origin=self.origin, values=value)

    def error(self, key: str, why: str) -> CheckpointError:
        """The error to raise for the value of `key`."""
        return CheckpointError(f"{self.origin}: {key} is {self.values.get(key)!r}; {why}")

    def _value(self, key: str, default: object) -> object:
        value = self.values.get(key)
        if value is not None:
            return value
        if default is None:
            raise CheckpointError(f"{self.origin}: {key} is missing")
        return default


def _read_json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise CheckpointError(
            f"{path} does not exist; a model folder needs config.json, safetensors and tokenizer files"
        ) from error
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{path} must hold a JSON object, not a {type(values).__name__}")
    return values
