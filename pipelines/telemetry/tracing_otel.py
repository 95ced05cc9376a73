"""The spans of `tracing` as OpenTelemetry's, sent by OTLP over HTTP; imported only where they are wanted.

It has a provider of its own: Airflow's, in the same process, stays as Airflow has set it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import version

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import Link, NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags
from opentelemetry.trace.span import TraceState

from fhir_adapters.trace_context import TraceContext
from pipelines.config import Tracing
from pipelines.telemetry.tracing import Kind, Value

_OWN = otel_context.create_key("careloom-own-ids")
_KINDS = {kind.name.lower(): kind for kind in SpanKind}
#: Spans that wait to be sent; beyond it new ones are dropped: the path never waits for a collector.
_QUEUE = 4096

# it says at every export that its collector is away; that is the collector's own alert
logging.getLogger("opentelemetry").setLevel(logging.CRITICAL)


class _Ids(RandomIdGenerator):
    """Random ids, but for the first span of a trace whose ids the event's identity has told."""

    def generate_trace_id(self) -> int:
        own = otel_context.get_value(_OWN)
        return int(own.trace_id, 16) if isinstance(own, TraceContext) else super().generate_trace_id()

    def generate_span_id(self) -> int:
        own = otel_context.get_value(_OWN)
        return int(own.span_id, 16) if isinstance(own, TraceContext) else super().generate_span_id()


class _Recording:
    """One span under way."""

    __slots__ = ("_span", "context")

    def __init__(self, span: trace.Span, state: str) -> None:
        self._span = span
        ids = span.get_span_context()
        self.context = TraceContext(f"{ids.trace_id:032x}", f"{ids.span_id:016x}", True, state)

    def set(self, name: str, value: Value) -> None:
        """An attribute."""
        self._span.set_attribute(name, value)

    def end(self, error: str | None, at: datetime | None) -> None:
        """It is over."""
        if error is not None:
            self._span.set_attribute("error.type", error)
            self._span.set_status(Status(StatusCode.ERROR))
        self._span.end(_nanoseconds(at))


class OtelRecorder:
    """A `Recorder`.

    Args:
        settings: where spans go.
        process: `service.name` is careloom-<process>.
        exporter: instead of OTLP, for tests.
    """

    def __init__(self, settings: Tracing, process: str, exporter: SpanExporter | None = None) -> None:
        headers = {name: value.get_secret_value() for name, value in settings.headers.items()}
        endpoint = f"{str(settings.endpoint).rstrip('/')}/v1/traces"
        exporter = exporter or OTLPSpanExporter(endpoint=endpoint, headers=headers, timeout=max(1, int(settings.flush)))
        resource = Resource({"service.name": f"careloom-{process}", "service.version": version("careloom")})
        self._provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, id_generator=_Ids(), shutdown_on_exit=False
        )
        self._processor: SpanProcessor = BatchSpanProcessor(exporter, max_queue_size=_QUEUE)
        self._provider.add_span_processor(self._processor)
        self._tracer = self._provider.get_tracer("careloom", version("careloom"))

    def start(
        self,
        name: str,
        kind: Kind,
        parent: TraceContext | None,
        own: TraceContext | None,
        links: Sequence[TraceContext],
        began: datetime | None,
    ) -> _Recording:
        """See `Recorder.start`."""
        context = otel_context.Context()
        if parent is not None:
            context = trace.set_span_in_context(NonRecordingSpan(_ids(parent)), context)
        token = otel_context.attach(otel_context.set_value(_OWN, own))
        try:
            span = self._tracer.start_span(
                name, context, _KINDS[kind], links=[Link(_ids(link)) for link in links], start_time=_nanoseconds(began)
            )
        finally:
            otel_context.detach(token)
        state = parent.state if parent is not None else ""
        return _Recording(span, state)

    def flush(self, seconds: float) -> bool:
        """See `Recorder.flush`."""
        done = threading.Event()

        def send() -> None:
            if self._processor.force_flush(int(seconds * 1000)):
                done.set()

        # in a thread of its own, for an exporter that retries takes longer than it was given
        threading.Thread(target=send, name="careloom-spans", daemon=True).start()
        return done.wait(seconds)

    def close(self) -> None:
        """Send what there is, and end."""
        self._provider.shutdown()


def _ids(context: TraceContext) -> SpanContext:
    state = TraceState.from_header([context.state]) if context.state else None
    flags = TraceFlags(TraceFlags.SAMPLED if context.sampled else TraceFlags.DEFAULT)
    return SpanContext(int(context.trace_id, 16), int(context.span_id, 16), True, flags, state)


def _nanoseconds(at: datetime | None) -> int | None:
    return None if at is None else int(at.timestamp() * 1_000_000) * 1000
