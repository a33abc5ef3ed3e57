"""The routes of the server, read from their decorators."""

import ast
import re
from collections.abc import Iterable, Iterator

from tests.architecture.source_tree import SourceFile

METHODS = frozenset({"get", "post", "put", "patch", "delete"})


def routes(files: Iterable[SourceFile]) -> Iterator[str]:
    """Method and path of each route, as `GET /v1/models/{}`."""
    for file in files:
        for node in file.nodes:
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr in METHODS
                and ast.unparse(node.func.value) == "router"
                and isinstance(node.args[0], ast.Constant)
            ):
                yield f"{node.func.attr.upper()} {without_names(str(node.args[0].value))}"


def without_names(path: str) -> str:
    """`/v1/models/{model_id:path}` and `/v1/models/{id}` are the same path."""
    return re.sub(r"\{[^}]*\}", "{}", path)
