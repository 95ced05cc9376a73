"""A receiver of OTLP over HTTP, real enough that OpenTelemetry's own exporter sends to it."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest


@dataclass
class Collector:
    """What came in.

    Attributes:
        url: for `tracing.endpoint`.
        raw: bodies that were taken, unpacked.
        headers: of the same requests.
        status: that it answers with.
    """

    url: str = ""
    raw: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    status: int = 200

    @property
    def spans(self) -> list[Any]:
        """All that were sent."""
        return [span for _, span in self.of_processes()]

    def named(self, name: str) -> list[Any]:
        """Those of a name."""
        return [span for span in self.spans if span.name == name]

    def of_processes(self) -> list[tuple[str, Any]]:
        """`service.name` and span."""
        found = []
        for body in list(self.raw):
            for part in ExportTraceServiceRequest.FromString(body).resource_spans:
                [service] = [a.value.string_value for a in part.resource.attributes if a.key == "service.name"]
                found += [(service, span) for scope in part.scope_spans for span in scope.spans]
        return found


def attributes(span: Any) -> dict[str, Any]:
    """Of a span, by name."""
    return {a.key: getattr(a.value, a.value.WhichOneof("value")) for a in span.attributes}


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that listens on 127.0.0.1 while inside."""
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
    try:
        yield taken
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
