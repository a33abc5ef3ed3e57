"""The contract as people and programs read it: docs/api.md, and the body of GET /v1/contract.

`python -m server.contract.document` writes the page to its standard output.
"""

import sys
from collections.abc import Iterator, Sequence

from server.contract.fields import ContractField, Status
from server.contract.table import ENDPOINTS

PAGE_HEAD = """# API

Every field of every request body: supported, refused (by name, with a 400) or a hint (accepted, without
effect on the answer). This page is written by `python -m server.contract.document` from the table that
the server itself works by; `GET /v1/contract` serves the same as JSON. A field that is not here is
refused as unknown, or ignored with `--unknown-fields ignore`. A null means that a field was left out.

Fields marked *peers* are not OpenAI's but carry the names that other open servers use; the official
clients send them with `extra_body`.
"""


def contract_page() -> str:
    """The whole of docs/api.md."""
    return "\n".join((PAGE_HEAD, *_sections())).rstrip() + "\n"


def contract_body() -> dict[str, list[dict[str, object]]]:
    """The body of GET /v1/contract: by endpoint, its fields in the order of the table."""
    return {endpoint: [_entry(field) for field in fields] for endpoint, fields in ENDPOINTS.items()}


def _sections() -> Iterator[str]:
    shown: dict[int, str] = {}
    for endpoint, fields in ENDPOINTS.items():
        yield f"## {endpoint}\n"
        if id(fields) in shown:
            yield f"The same body as `{shown[id(fields)]}`.\n"
            continue
        shown[id(fields)] = endpoint
        yield _table(fields)


def _table(fields: Sequence[ContractField]) -> str:
    rows = ["| field | | from | |", "|---|---|---|---|"]
    for field in fields:
        status = field.status.value
        if field.status is Status.REFUSED:
            status += "" if field.neutral == (None,) else " but for a value that asks for nothing"
        rows.append(f"| `{field.name}` | {status} | {field.source} | {field.note} |")
    return "\n".join(rows) + "\n"


def _entry(field: ContractField) -> dict[str, object]:
    entry: dict[str, object] = {
        "name": field.name,
        "status": field.status.value,
        "source": field.source,
        "note": field.note,
    }
    if field.status is Status.REFUSED:
        entry["accepted_values"] = list(field.neutral)
    return entry


if __name__ == "__main__":
    sys.stdout.write(contract_page())
