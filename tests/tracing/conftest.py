"""A receiver of OTLP over HTTP, real enough that OpenTelemetry's own exporter sends to it, and a recorder that does."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from pipelines import tracing
from pipelines.config import Tracing
from pipelines.tracing_otel import OtelRecorder


@dataclass
class Collector:
    """What came in."""

    url: str = ""
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200

    @property
    def spans(self) -> list[Any]:
        found = []
        for body in self.raw:
            request = ExportTraceServiceRequest.FromString(body)
            found += [s for r in request.resource_spans for scope in r.scope_spans for s in scope.spans]
        return found

    def named(self, name: str) -> list[Any]:
        return [span for span in self.spans if span.name == name]


def attributes(span: Any) -> dict[str, Any]:
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


@pytest.fixture
def collector() -> Iterator[Collector]:
    taken = Collector()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            packed = self.headers.get("content-encoding") == "gzip"
            if taken.status == 200 and self.path == "/v1/traces":
                taken.raw.append(gzip.decompress(body) if packed else body)
                taken.headers.append({k.lower(): v for k, v in self.headers.items()})
            self.send_response(taken.status if self.path == "/v1/traces" else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    taken.url = f"http://127.0.0.1:{server.server_port}"
    yield taken
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def recording(collector: Collector) -> Iterator[Callable[[], None]]:
    """Spans are on, and go to the collector; call it to have them sent."""
    recorder = OtelRecorder(Tracing(endpoint=collector.url, headers={"x-tenant": "ward"}), "test")
    tracing.use(recorder)
    yield lambda: tracing.flush(5)
    tracing.use(None)
    recorder.close()
