"""API keys: what each may do, kept as digests only.

A key file has a key a line, `scope:key` or `scope,scope:key`; a key without scope may generate. A key
that itself begins with a word and a colon needs its scope in front.
Empty lines and those that begin with # are left out. This module knows no HTTP.
"""

import hmac
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from hashlib import sha256
from pathlib import Path


class Scope(StrEnum):
    """What a key opens: the API itself, the server's figures, its administration (which opens all)."""

    INFERENCE = "inference"
    METRICS = "metrics"
    ADMIN = "admin"


Scopes = frozenset[Scope]
_WORDS = re.compile(r"[A-Za-z]+( *, *[A-Za-z]*)*")
DEFAULT_SCOPES: Scopes = frozenset({Scope.INFERENCE})


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownKey:
    """A key by its digest's first figures, and what it opens."""

    name: str
    scopes: Scopes

    def opens(self, scope: Scope) -> bool:
        """Whether this key is enough for what needs `scope`."""
        return scope in self.scopes or Scope.ADMIN in self.scopes


class Keyring:
    """The keys of a server, as SHA-256 digests with their scopes."""

    def __init__(self, scopes_by_digest: Mapping[str, Scopes]) -> None:
        self._scopes = {bytes.fromhex(digest): scopes for digest, scopes in scopes_by_digest.items()}

    def __bool__(self) -> bool:
        return bool(self._scopes)

    def find(self, key: bytes) -> KnownKey | None:
        """Who has this key; None for nobody. How long it takes does not tell how close a guess was."""
        digest = sha256(key).digest()
        found = [scopes for known, scopes in self._scopes.items() if hmac.compare_digest(digest, known)]
        return KnownKey(name=f"key-{digest.hex()[:8]}", scopes=found[0]) if found else None


def read_keys(path: Path) -> dict[str, Scopes]:
    """The digests of the keys in a file, with their scopes.

    Raises ValueError, which shows no key, for a file that cannot be read, or a line without a key or
    with a scope that is none.
    """
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} cannot be read: {type(error).__name__}") from error
    merged: dict[str, Scopes] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            key, scopes = _split(line.strip())
        except ValueError as error:
            raise ValueError(f"{path} line {number}: {error}") from None
        if not key:
            raise ValueError(f"{path} line {number} has a scope but no key")
        digest = digest_of(key)
        merged[digest] = merged.get(digest, frozenset()) | scopes
    return merged


def digest_of(key: str) -> str:
    """What is kept of a key."""
    return sha256(key.encode()).hexdigest()


def _split(line: str) -> tuple[str, Scopes]:
    """Key and scopes; ValueError where what looks like scopes, words before a colon, is not."""
    before, colon, behind = line.partition(":")
    if not colon or not _WORDS.fullmatch(before):
        return line, DEFAULT_SCOPES
    try:
        return behind.strip(), frozenset(Scope(name.strip()) for name in before.split(","))
    except ValueError:
        known = ", ".join(Scope)
        raise ValueError(
            f"what stands before its first colon is no scope (known are {known}); a key that has a word and a "
            "colon itself needs its scope in front"
        ) from None
