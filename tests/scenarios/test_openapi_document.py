"""Bodies made from our own OpenAPI document, right ones and wrong ones: none makes the server fail."""

import pytest
import schemathesis
from hypothesis import HealthCheck, settings

from server.app import create_app
from server.settings import Settings
from tests.support.fake_engine import MODEL_ID, FakeEngine

pytestmark = pytest.mark.clients


class LastingEngine(FakeEngine):
    """Outlives the lifespans that a client opens around each of its calls."""

    async def stop(self, drain_s: float = 0.0) -> None:
        self.num_stops += 1


SCHEMA = schemathesis.openapi.from_asgi("/openapi.json", create_app(Settings(), LastingEngine()))


@SCHEMA.parametrize()
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
def test_no_request_by_the_document_makes_the_server_fail(case):
    if isinstance(case.body, dict) and isinstance(case.body.get("model"), str):
        case.body["model"] = MODEL_ID  # else most bodies would end at the name of the model
    answer = case.call()

    assert answer.status_code < 500, answer.text
    if answer.status_code >= 400:
        assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
