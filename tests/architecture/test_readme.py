"""README names every setting and every route, and no environment variable that is not there."""

import re
from collections.abc import Iterable

from server.settings import ENV_PREFIX, Settings
from tests.architecture.routes import routes, without_names
from tests.architecture.source_tree import ROOT, expect_none, planted, read_tree

POSITIONAL = {"model": "MODEL"}


def flag(field: str) -> str:
    """How a user writes a setting: `max_step_tokens` is --max-step-tokens."""
    return POSITIONAL.get(field, f"--{field.replace('_', '-')}")


def unnamed(words: Iterable[str], text: str) -> list[str]:
    """Those of `words` that do not stand in `text` as a whole word."""
    return [word for word in words if not re.search(rf"(?<![\w/-]){re.escape(word)}(?![\w/-])", text)]


def readme() -> str:
    return (ROOT / "README.md").read_text("utf-8")


def test_every_setting_is_in_readme():
    fields = Settings.model_fields

    assert len(fields) > 20
    assert unnamed(map(flag, fields), readme()) == []


def test_every_route_is_in_readme():
    known = list(routes(read_tree("server/routes")))

    assert len(known) >= 6
    assert unnamed(known, without_names(readme())) == []


def test_readme_names_no_variable_that_is_not_read():
    known = {f"{ENV_PREFIX}{field}".upper() for field in Settings.model_fields}

    named = set(re.findall(rf"\b{ENV_PREFIX}[A-Z_]+\b", readme()))

    expect_none(f"README.md:1: {name} is no setting" for name in sorted(named - known))


def test_a_word_is_found_as_a_whole_only():
    text = "`--max-context` and GET /v1/models/{}"

    assert unnamed(["--max", "--max-context", "GET /v1/models", "GET /v1/models/{}"], text) == [
        "--max",
        "GET /v1/models",
    ]


def test_routes_are_read_from_their_decorators():
    text = "@router.post(\n    '/v1/things/{thing_id:path}',\n)\nasync def f(): ...\nclient.get('/x')"

    assert list(routes([planted("server/routes/things.py", text)])) == ["POST /v1/things/{}"]
