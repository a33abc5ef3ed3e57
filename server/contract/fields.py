"""`ContractField`: what this server does with one field of one endpoint's body.

The tables are made of these; the request schemas, the documentation and `GET /v1/contract` follow from
them. This module knows no field by name.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum


class Status(StrEnum):
    """Whether a field works, is refused by name, or is accepted without any effect on the answer."""

    SUPPORTED = "supported"
    REFUSED = "refused"
    HINT = "hint"


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractField:
    """One field: its `note` says what it does or why it is refused; `example` is a value that asks for it.

    A refused field passes with any of the values in `neutral`, which ask for nothing. `source` is "OpenAI"
    for what its API documents, else the kind of server the name comes from. `companions` are other
    fields that the example needs.
    """

    name: str
    status: Status
    note: str
    example: object
    neutral: tuple[object, ...] = ()
    source: str = "OpenAI"
    companions: tuple[tuple[str, object], ...] = ()

    def is_neutral(self, value: object) -> bool:
        """Whether `value` asks for nothing, so that ignoring it changes nothing; false is no zero."""
        return any(type(value) is type(neutral) and value == neutral for neutral in self.neutral)


def works(
    name: str, example: object, note: str, *, source: str = "OpenAI", **companions: object
) -> ContractField:
    """A supported field."""
    return ContractField(
        name=name,
        status=Status.SUPPORTED,
        note=note,
        example=example,
        source=source,
        companions=tuple(companions.items()),
    )


def hint(
    name: str,
    example: object,
    note: str = "Accepted, without effect.",
    *,
    source: str = "OpenAI",
    **companions: object,
) -> ContractField:
    """A field that has no effect on the answer itself where it is documented, or none here."""
    return ContractField(
        name=name,
        status=Status.HINT,
        note=note,
        example=example,
        source=source,
        companions=tuple(companions.items()),
    )


def refused(
    name: str, example: object, note: str, *, neutral: tuple[object, ...] = (), source: str = "OpenAI"
) -> ContractField:
    """A field that is refused by name; null always passes."""
    return ContractField(
        name=name,
        status=Status.REFUSED,
        note=note,
        example=example,
        neutral=(None, *neutral),
        source=source,
    )


def notes(fields: Sequence[ContractField]) -> Mapping[str, str]:
    """What each field does, by its name."""
    return {field.name: field.note for field in fields}
