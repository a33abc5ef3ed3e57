"""Traces for an OpenTelemetry collector: a span a request, with its queue, pre-fill and decode below it.

The one file that imports OpenTelemetry, and only when traces are asked for: the extra `otlp` installs it. Spans are
made after the fact, from what is known at a request's end, and are sent from a thread of their own with a
bounded queue: a collector that is slow or away costs spans, never a request. Attributes are those of the
GenAI and HTTP conventions (opentelemetry.io/docs/specs/semconv/gen-ai), as of version 1.37, where they have one.
"""

import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Self
from urllib.parse import urlsplit

from engine import ConfigError, RequestRecord
from server.observation import Answered

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
    from opentelemetry.util.types import AttributeValue

TRACES_PATH = "/v1/traces"
OPERATIONS = {"/v1/chat/completions": "chat", "/v1/completions": "text_completion"}
"""The routes that leave a span, with the conventions' name of what they do."""
MAX_QUEUED_SPANS = 2048
MAX_BATCH_SPANS = 256
SEND_INTERVAL_MS = 1000.0
SEND_TIMEOUT_S = 3.0
CLOSE_S = 3.0

logger = logging.getLogger(__name__)


def require_traces(endpoint: str) -> None:
    """Raise ConfigError where spans can never be sent to `endpoint`, before anything is started."""
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise ConfigError(f"otlp_endpoint is {endpoint!r}; it must be an http or https URL")
    try:
        import opentelemetry.exporter.otlp.proto.http.trace_exporter  # noqa: PLC0415  an optional extra
        import opentelemetry.sdk.trace  # noqa: F401, PLC0415  an optional extra
    except ImportError as error:
        raise ConfigError(
            f"otlp_endpoint needs a package that is not installed ({error.name}); "
            "install the extra: pip install 'ringserve[otlp]'"
        ) from error


class Traces:
    """Sends a span for each request it observes, until it is closed."""

    def __init__(self, provider: "TracerProvider", model_id: str, now: Callable[[], float]) -> None:
        """`now` is the clock of the requests' times."""
        self._provider = provider
        self._tracer = provider.get_tracer("ringserve")
        self._model_id = model_id
        self._now = now

    @classmethod
    def open(
        cls, endpoint: str, model_id: str, *, version: str, now: Callable[[], float] = time.monotonic
    ) -> Self:
        """Begin to send to the collector at `endpoint`, to whose path /v1/traces is added if it lacks it.

        Raises ConfigError as `require_traces`.
        """
        require_traces(endpoint)
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  extra
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415  extra
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415  extra
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415  extra

        logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)  # one warning of ours says it all
        exporter = OTLPSpanExporter(endpoint=traces_url(endpoint), timeout=SEND_TIMEOUT_S)
        resource = Resource.create({"service.name": "ringserve", "service.version": version})
        provider = TracerProvider(resource=resource, shutdown_on_exit=False)
        provider.add_span_processor(
            BatchSpanProcessor(
                quiet(exporter, endpoint),
                max_queue_size=MAX_QUEUED_SPANS,
                max_export_batch_size=MAX_BATCH_SPANS,
                schedule_delay_millis=SEND_INTERVAL_MS,
            )
        )
        return cls(provider, model_id, now)

    def observe(self, answered: Answered) -> None:
        """Leave the spans of one request; of those that ask for no tokens there are none."""
        operation = OPERATIONS.get(answered.route or "")
        if operation is None:
            return
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context  # noqa: PLC0415  extra

        to_ns = self._to_wall_ns()
        span = self._tracer.start_span(
            f"{operation} {self._model_id}",
            parent_of(answered.trace_headers),
            kind=SpanKind.SERVER,
            attributes=attributes_of(answered, operation, self._model_id),
            start_time=to_ns(answered.started_s),
        )
        failure = failure_of(answered)
        if failure is not None:
            span.set_attribute("error.type", failure)
            span.set_status(Status(StatusCode.ERROR))
        within = set_span_in_context(span)
        for record in answered.records:
            for name, start_s, end_s in stages_of(record):
                child = self._tracer.start_span(name, within, start_time=to_ns(start_s))
                child.end(to_ns(end_s))
        span.end(to_ns(answered.ended_s))

    def close(self) -> None:
        """Send what is left, within a few seconds; blocks, and may be called twice."""
        closing = threading.Thread(target=self._provider.shutdown, name="last spans", daemon=True)
        closing.start()
        closing.join(CLOSE_S)

    def _to_wall_ns(self) -> Callable[[float], int]:
        """Turns times of our clock, which does not know the date, into nanoseconds since the epoch."""
        offset_s = time.time() - self._now()
        return lambda moment_s: int(1e9 * (moment_s + offset_s))


def traces_url(endpoint: str) -> str:
    """Where spans are sent: the signal's path below a collector's address."""
    bare = endpoint.rstrip("/")
    return bare if bare.endswith(TRACES_PATH) else bare + TRACES_PATH


def parent_of(headers: Mapping[str, str]) -> "Context":
    """The caller's span, as the W3C headers `traceparent` and `tracestate` name it; none if they do not."""
    from opentelemetry.context import Context  # noqa: PLC0415  an optional extra
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator  # noqa: PLC0415

    return TraceContextTextMapPropagator().extract(dict(headers), Context())


def stages_of(record: RequestRecord) -> list[tuple[str, float, float]]:
    """Name, start and end of the stages that a request came through, the last one cut off by its end."""
    if record.waited_s is None:
        return [("queue", record.opened_s, record.ended_s)]
    begun_s = min(record.opened_s + record.waited_s, record.ended_s)
    stages = [("queue", record.opened_s, begun_s)]
    if record.first_token_s is None:
        return [*stages, ("prefill", begun_s, record.ended_s)]
    first_token_s = max(begun_s, record.first_token_s)
    return [*stages, ("prefill", begun_s, first_token_s), ("decode", first_token_s, record.ended_s)]


def failure_of(answered: Answered) -> str | None:
    """The conventions' `error.type`: an error's name, or a status of 500 and above; None where it went well."""
    errors = [record.outcome for record in answered.records if record.outcome.endswith("Error")]
    if errors:
        return errors[0]
    return str(answered.status) if answered.status >= 500 else None


def attributes_of(answered: Answered, operation: str, model_id: str) -> "dict[str, AttributeValue]":
    """What is told of a request: names, counts and parameters, nothing of what was said."""
    found: dict[str, AttributeValue] = {
        "gen_ai.operation.name": operation,
        "gen_ai.provider.name": "ringserve",
        "gen_ai.request.model": model_id,
        "http.request.method": answered.method_label,
        "http.route": answered.route_label,
        "http.response.status_code": answered.status,
        "ringserve.request.id": answered.request_id,
        "ringserve.request.number": answered.number,
    }
    if answered.records:
        found |= _generation(answered.records, model_id)
    return found


def _generation(records: Sequence[RequestRecord], model_id: str) -> "dict[str, AttributeValue]":
    sampling = records[0].request.sampling
    return {
        "gen_ai.request.max_tokens": sampling.max_tokens,
        "gen_ai.request.temperature": sampling.temperature,
        "gen_ai.request.top_p": sampling.top_p,
        "gen_ai.request.top_k": float(sampling.top_k),
        "gen_ai.request.frequency_penalty": sampling.frequency_penalty,
        "gen_ai.request.presence_penalty": sampling.presence_penalty,
        "gen_ai.request.choice.count": records[0].request.num_choices,
        "gen_ai.response.model": model_id,
        "gen_ai.response.finish_reasons": [
            reason for record in records for reason in record.reason.split(",")
        ],
        "gen_ai.usage.input_tokens": sum(len(record.request.prompt_ids) for record in records),
        "gen_ai.usage.output_tokens": sum(record.num_output_tokens for record in records),
        "gen_ai.usage.cache_read.input_tokens": sum(record.num_cached_tokens for record in records),
    }


def quiet(exporter: "SpanExporter", endpoint: str) -> "SpanExporter":
    """`exporter` with one warning when it begins to fail, and one line when it works again."""
    from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult  # noqa: PLC0415  an optional extra

    class Quiet(SpanExporter):
        """Says of a run of failures only that it began, and that it ended."""

        is_failing = False

        def export(self, spans: "Sequence[ReadableSpan]") -> "SpanExportResult":
            result = exporter.export(spans)
            has_failed = result is not SpanExportResult.SUCCESS
            if has_failed and not self.is_failing:
                logger.warning("traces cannot be sent endpoint=%s (requests go on without)", endpoint)
            elif self.is_failing and not has_failed:
                logger.info("traces are sent again endpoint=%s", endpoint)
            self.is_failing = has_failed
            return result

        def shutdown(self) -> None:
            exporter.shutdown()

    return Quiet()
