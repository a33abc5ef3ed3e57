"""A real OpenTelemetry collector, as small as can be: takes spans over HTTP and keeps them."""

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

PATIENCE_S = 20.0


class Collector:
    """`spans` came in this order; while `status` is not 200 what comes is refused and lost."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.paths: list[str] = []
        self.status = 200
        self.num_refused = 0
        self.changed = threading.Condition()
        self.url = ""

    def wait(self, num_spans: int) -> dict[str, Span]:
        """The spans by name, once there are so many."""
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.spans) >= num_spans, PATIENCE_S), self.spans
            return {span.name: span for span in self.spans}

    def wait_refused(self) -> None:
        with self.changed:
            assert self.changed.wait_for(lambda: self.num_refused, PATIENCE_S)

    def take(self, path: str, body: bytes) -> int:
        with self.changed:
            self.paths.append(path)
            if self.status != 200:
                self.num_refused += 1
            else:
                for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
                    for scope in resource.scope_spans:
                        self.spans += scope.spans
            self.changed.notify_all()
            return self.status


@contextmanager
def collector() -> Iterator[Collector]:
    """Listens on a free loopback port, in a thread."""
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers["Content-Encoding"] == "gzip":
                body = gzip.decompress(body)
            status = taken.take(self.path, body)
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    taken.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
