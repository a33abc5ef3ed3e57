"""Bodies made from our own OpenAPI document, right ones and wrong ones: none makes the server fail."""

import pytest
from hypothesis import HealthCheck, settings

from server.app import create_app
from server.settings import Settings
from tests.support.fake_engine import FakeEngine

schemathesis = pytest.importorskip("schemathesis", reason="made for an environment with client packages")
pytestmark = pytest.mark.clients

SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(), FakeEngine()))


@SCHEMA.parametrize()
@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_by_the_document_makes_the_server_fail(case):
    answer = case.call()

    assert answer.status_code < 500 or (case.path == "/ready" and answer.status_code == 503), answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
