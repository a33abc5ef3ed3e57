"""Which part of a JSON schema cannot be compiled. The library says why, but not where.

It tries the schema's parts by themselves, outermost first, and knows nothing of the library but that.
"""

import json
from collections.abc import Callable, Iterator, Mapping

MARK = "%json "
MAX_TRIALS = 128
OPTIONS = "x-guidance"
DEFINITIONS = ("$defs", "definitions")
NAMED = (*DEFINITIONS, "properties", "patternProperties")
SINGLE = ("items", "additionalProperties", "additionalItems")
LISTED = ("prefixItems", "items", "anyOf", "oneOf", "allOf")
LOST_POINTER = "does not exist"

Schema = Mapping[str, object]
Complaint = Callable[[str], str]
"""What is wrong with a grammar; "" when nothing is."""


def blamed_path(grammar: str, complaint: Complaint) -> str | None:
    """The JSON pointer of the smallest schema in `grammar` that is wrong by itself; None if none is.

    {"type": "object", "properties": {"a": {"not": {}}}}    gives    #/properties/a
    """
    trial = _Trial(complaint)
    for schema in _schemas(grammar):
        if trial.is_wrong(schema, schema):
            return trial.path(schema, schema, "#")
    return None


class _Trial:
    """Tries schemas, a bounded number of them."""

    def __init__(self, complaint: Complaint) -> None:
        self._complaint = complaint
        self._num_left = MAX_TRIALS

    def is_wrong(self, part: Schema, root: Schema) -> bool:
        """Whether a part of `root` is wrong by itself; what it refers to elsewhere in the root does not count."""
        self._num_left -= 1
        if self._num_left < 0:
            return False
        around = {key: root[key] for key in (*DEFINITIONS, OPTIONS) if key in root}
        said = self._complaint(f"start: {MARK}{json.dumps({**around, **part})}")
        return bool(said) and (part is root or LOST_POINTER not in said)

    def path(self, part: Schema, root: Schema, here: str) -> str:
        """The pointer of the smallest wrong schema in `part`, which is wrong itself and stands `here`."""
        for place, inner in _parts(part, json.dumps(root)):
            if self.is_wrong(inner, root):
                return self.path(inner, root, f"{here}/{place}")
        return here


def _schemas(grammar: str) -> Iterator[Schema]:
    decoder, place = json.JSONDecoder(), grammar.find(MARK)
    while place >= 0:
        try:
            schema, _ = decoder.raw_decode(grammar, place + len(MARK))
        except ValueError:
            schema = None  # the mark stands in some text
        if isinstance(schema, dict):
            yield schema
        place = grammar.find(MARK, place + 1)


def _parts(schema: Schema, root_text: str) -> Iterator[tuple[str, Schema]]:
    """The schemas right inside `schema`: its definitions first, if anything refers to them."""
    for keyword in NAMED:
        for name, inner in _items(schema.get(keyword)):
            pointer = f"{keyword}/{_escaped(name)}"
            if keyword not in DEFINITIONS or json.dumps(f"#/{pointer}") in root_text:
                yield from _if_schema(pointer, inner)
    for keyword in SINGLE:
        yield from _if_schema(keyword, schema.get(keyword))
    for keyword in LISTED:
        listed = schema.get(keyword)
        for index, inner in enumerate(listed if isinstance(listed, list) else ()):
            yield from _if_schema(f"{keyword}/{index}", inner)


def _items(value: object) -> Iterator[tuple[str, object]]:
    yield from (value.items() if isinstance(value, dict) else ())


def _if_schema(pointer: str, value: object) -> Iterator[tuple[str, Schema]]:
    if isinstance(value, dict):
        yield pointer, value


def _escaped(name: str) -> str:
    return name.replace("~", "~0").replace("/", "~1")
