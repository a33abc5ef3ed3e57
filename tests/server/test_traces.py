import logging
import socket
import subprocess
import sys

import httpx
import pytest

from engine import ConfigError
from server.settings import Settings
from server.traces import Traces, failure_of, require_traces, stages_of, traces_url
from tests.server.test_observation import answered
from tests.support.bodies import CHAT, CHAT_PATH
from tests.support.collector import collector
from tests.support.fake_engine import MODEL_ID, FakeEngine, a_record
from tests.support.live_server import live_server
from tests.support.new_request import new_request

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
HELLO = new_request("hello")


@pytest.fixture(autouse=True)
def _loggers():
    yield
    logging.getLogger("opentelemetry").setLevel(logging.NOTSET)


def attributes(span) -> dict[str, object]:
    """A span's attributes as plain values."""
    return {pair.key: plain(pair.value) for pair in span.attributes}


def plain(value) -> object:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [plain(entry) for entry in value.array_value.values]
    return getattr(value, kind)


def test_a_streamed_request_leaves_a_span_with_its_stages_in_the_callers_trace():
    with collector() as taken:
        with live_server(FakeEngine, Settings(otlp_endpoint=taken.url)) as live:
            headers = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
            httpx.post(live.url + CHAT_PATH, json={**CHAT, "stream": True}, headers=headers)
        spans = taken.wait(4)
    request = spans.pop(f"chat {MODEL_ID}")
    told = attributes(request)

    assert (request.trace_id.hex(), request.parent_span_id.hex()) == (TRACE, PARENT)
    assert set(spans) == {"queue", "prefill", "decode"}
    assert {span.parent_span_id for span in spans.values()} == {request.span_id}
    assert (told["gen_ai.operation.name"], told["gen_ai.request.model"]) == ("chat", MODEL_ID)
    assert (told["gen_ai.usage.output_tokens"], told["gen_ai.usage.cache_read.input_tokens"]) == (7, 2)
    assert told["gen_ai.response.finish_reasons"] == ["stop"]
    assert (told["http.route"], told["http.response.status_code"]) == (CHAT_PATH, 200)
    assert taken.paths == ["/v1/traces"]


def test_nothing_that_was_said_is_sent():
    with collector() as taken:
        with live_server(FakeEngine, Settings(otlp_endpoint=taken.url)) as live:
            said = [{"role": "user", "content": "a secret"}]
            httpx.post(live.url + CHAT_PATH, json={**CHAT, "messages": said})
        spans = taken.wait(4)

    assert "secret" not in str(spans)
    assert "Hello" not in str(spans)


def test_what_the_caller_does_not_record_is_not_sent():
    with collector() as taken:
        traces = Traces.open(taken.url, "m", version="1")
        traces.observe(answered(trace_headers={"traceparent": f"00-{TRACE}-{PARENT}-00"}))
        traces.observe(answered(records=()))
        traces.close()
        spans = taken.wait(1)

    assert set(spans) == {"text_completion m"}


def test_without_a_caller_a_request_begins_a_trace_and_other_routes_leave_none():
    with collector() as taken:
        traces = Traces.open(taken.url, "m", version="1")
        traces.observe(answered(route="/v1/models", records=()))
        traces.observe(answered(records=(), status=503))
        traces.close()
        (span,) = taken.wait(1).values()

    assert span.parent_span_id == b""
    assert attributes(span)["error.type"] == "503"
    assert span.status.code == span.status.STATUS_CODE_ERROR


def test_times_are_those_of_the_day():
    with collector() as taken:
        traces = Traces.open(taken.url, "m", version="1", now=lambda: 15.0)
        traces.observe(answered())
        traces.close()
        spans = taken.wait(4)
    request, decode = spans["text_completion m"], spans["decode"]

    assert request.end_time_unix_nano - request.start_time_unix_nano == pytest.approx(5e9, rel=1e-6)
    assert decode.end_time_unix_nano - decode.start_time_unix_nano == pytest.approx(2e9, rel=1e-6)
    assert request.start_time_unix_nano > 1_600_000_000e9


def test_a_collector_that_refuses_is_told_once_and_its_return_too(caplog):
    caplog.set_level(logging.INFO)
    with collector() as taken:
        taken.status = 400
        traces = Traces.open(taken.url, "m", version="1")
        for _ in range(2):
            traces.observe(answered())
            traces._provider.force_flush(5000)
        taken.wait_refused()
        taken.status = 200
        traces.observe(answered())
        traces.close()
        taken.wait(4)
    lines = [record.getMessage() for record in caplog.records]

    assert [line.split(" endpoint")[0] for line in lines] == [
        "traces cannot be sent",
        "traces are sent again",
    ]


def test_a_collector_that_is_away_hurts_no_request():
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"http://127.0.0.1:{free.getsockname()[1]}"
    with live_server(FakeEngine, Settings(otlp_endpoint=address)) as live:
        answers = [httpx.post(live.url + CHAT_PATH, json=CHAT) for _ in range(3)]

    assert [answer.status_code for answer in answers] == [200] * 3


@pytest.mark.parametrize("module", ["opentelemetry.sdk.trace", "opentelemetry.exporter.otlp.proto.http"])
def test_a_missing_extra_is_refused_with_what_to_install(monkeypatch, module):
    for name in [name for name in sys.modules if name.startswith(f"{module}.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(ConfigError, match=r"pip install 'ringserve\[otlp\]'"):
        require_traces("http://127.0.0.1:4318")


@pytest.mark.parametrize("endpoint", ["collector:4317", "grpc://collector", ""])
def test_an_endpoint_of_another_kind_is_refused(endpoint):
    with pytest.raises(ConfigError, match="http or https"):
        require_traces(endpoint)


def test_where_traces_are_not_asked_for_nothing_is_loaded():
    code = "import server.app, sys; print('opentelemetry.sdk' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "False\n"


@pytest.mark.parametrize(
    ("endpoint", "url"),
    [
        ("http://c:4318", "http://c:4318/v1/traces"),
        ("http://c:4318/", "http://c:4318/v1/traces"),
        ("https://c/tenant/v1/traces", "https://c/tenant/v1/traces"),
    ],
)
def test_the_signals_path_is_added_where_it_lacks(endpoint, url):
    assert traces_url(endpoint) == url


@pytest.mark.parametrize(
    ("changes", "stages"),
    [
        ({}, [("queue", 10.0, 11.0), ("prefill", 11.0, 12.0), ("decode", 12.0, 14.0)]),
        ({"first_token_s": None}, [("queue", 10.0, 11.0), ("prefill", 11.0, 14.0)]),
        ({"first_token_s": None, "waited_s": None}, [("queue", 10.0, 14.0)]),
        ({"waited_s": 9.0, "first_token_s": None}, [("queue", 10.0, 14.0), ("prefill", 14.0, 14.0)]),
    ],
    ids=["whole", "no token", "never begun", "clocks apart"],
)
def test_stages_follow_each_other_up_to_the_end(changes, stages):
    assert stages_of(a_record(HELLO, **changes)) == stages


@pytest.mark.parametrize(
    ("status", "reason", "failure"),
    [(200, "stop", None), (200, "StepError", "StepError"), (499, "abort", None), (504, "stop", "504")],
)
def test_only_our_own_failures_are_errors(status, reason, failure):
    assert failure_of(answered(status=status, records=(a_record(HELLO, reason=reason),))) == failure
