from server.contract.document import contract_body, contract_page
from server.contract.table import ENDPOINTS
from tests.architecture.source_tree import ROOT


def test_the_page_is_what_the_table_says():
    page = (ROOT / "docs" / "api.md").read_text("utf-8")

    assert page == contract_page(), "write it again: python -m server.contract.document > docs/api.md"


def test_the_page_names_every_field_of_every_endpoint():
    page = contract_page()

    assert all(f"## {endpoint}" in page for endpoint in ENDPOINTS)
    assert all(f"| `{field.name}` |" in page for fields in ENDPOINTS.values() for field in fields)


def test_the_body_tells_what_a_refused_field_may_be():
    verbosity = next(f for f in contract_body()["POST /v1/chat/completions"] if f["name"] == "verbosity")

    assert (verbosity["status"], verbosity["accepted_values"]) == ("refused", [None, "medium"])
