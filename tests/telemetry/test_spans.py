"""Spans as a collector gets them over OTLP: ids, parents, links, attributes; and nothing imported when they are off."""

from __future__ import annotations

import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from fhir_adapters import trace_context
from fhir_adapters.trace_context import derived, parse
from pipelines.config import Tracing
from pipelines.errors import ErrorClass, StepFailed
from pipelines.telemetry import tracing

CANARY = "王小明-Canary"
SENDER = parse(f"00-{'a' * 32}-{'b' * 16}-01", "rojo=1")
UNSAMPLED = parse(f"00-{'a' * 32}-{'b' * 16}-00")


def test_without_an_endpoint_no_process_imports_opentelemetry() -> None:
    code = (
        "import sys; from pipelines.telemetry import tracing; from pipelines.config import Tracing\n"
        "import pipelines.gateway.app, pipelines.dispatcher.__main__\n"
        "import pipelines.runner.carry, pipelines.runner.inference\n"
        "import monitoring.exporter\n"
        "tracing.start(Tracing(), 'x')\n"
        "with tracing.span('rules'): pass\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_a_span_of_a_senders_trace_is_its_child_and_becomes_the_context_of_what_is_asked_in_it(
    collector: Any, recording: Any
) -> None:
    with tracing.span("outer", "server", {"careloom__source": "ward"}, parent=SENDER):
        inside = trace_context.outgoing()
        with tracing.span("inner"):
            pass
    assert trace_context.outgoing() == {}
    recording()
    [outer], [inner] = collector.named("outer"), collector.named("inner")
    assert (outer.trace_id.hex(), outer.parent_span_id.hex()) == ("a" * 32, "b" * 16)
    assert inner.parent_span_id == outer.span_id
    assert inside == {"traceparent": f"00-{'a' * 32}-{outer.span_id.hex()}-01", "tracestate": "rojo=1"}
    assert collector.headers[0]["x-tenant"] == "ward"


def test_where_we_made_the_trace_its_first_span_has_the_ids_that_the_event_tells(
    collector: Any, recording: Any
) -> None:
    own = derived("12" * 32, 1.0)
    with tracing.span("intake", own=own, links=[SENDER]):
        pass
    recording()
    [span] = collector.spans
    assert (span.trace_id.hex(), span.span_id.hex(), span.parent_span_id) == (own.trace_id, own.span_id, b"")
    assert [link.trace_id.hex() for link in span.links] == ["a" * 32]


def test_a_trace_that_is_not_sampled_gets_no_span_and_its_context_goes_on_unchanged(
    collector: Any, recording: Any
) -> None:
    token = trace_context.current.set(UNSAMPLED)
    try:
        with tracing.span("rules") as span:
            span.set(careloom__findings=1)
            assert trace_context.outgoing()["traceparent"] == UNSAMPLED.traceparent
    finally:
        trace_context.current.reset(token)
    recording()
    assert collector.spans == []


@pytest.mark.parametrize(
    ("error", "told"),
    [(StepFailed(ErrorClass.FHIR_REJECTED, CANARY), "fhir_rejected"), (ValueError(CANARY), "ValueError")],
)
def test_of_an_error_the_class_alone_is_told(collector: Any, recording: Any, error: Exception, told: str) -> None:
    with pytest.raises(type(error)), tracing.span("write", parent=SENDER):
        raise error
    recording()
    [span] = collector.spans
    assert {a.key: a.value.string_value for a in span.attributes} == {"error.type": told}
    assert span.status.code == 2
    assert CANARY.encode() not in b"".join(collector.raw)


def test_an_attribute_that_is_not_of_the_closed_set_is_refused(recording: Any) -> None:
    with pytest.raises(ValueError, match=r"patient\.name is no attribute"), tracing.span("x", parent=SENDER) as span:
        span.set(patient__name=CANARY)


def test_what_is_over_is_told_with_its_own_times(collector: Any, recording: Any) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC)
    tracing.past("match", SENDER, began, began + timedelta(seconds=2), careloom__findings=3)
    recording()
    [span] = collector.spans
    assert span.end_time_unix_nano - span.start_time_unix_nano == 2_000_000_000
    assert span.start_time_unix_nano == int(began.timestamp()) * 1_000_000_000


def test_a_collector_that_is_away_holds_nobody_up_for_longer_than_it_may(collector: Any, recording: Any) -> None:
    collector.status = 503
    with tracing.span("x", parent=SENDER):
        pass
    began = time.monotonic()
    tracing.flush(0.2)
    assert time.monotonic() - began < 5  # a bound, not a measure: its exporter would go on retrying


def test_an_endpoint_without_the_extra_is_refused_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pipelines.telemetry.tracing_otel", None)
    with pytest.raises(tracing.ConfigError, match=r"pip install 'careloom\[otel\]'"):
        tracing.start(Tracing(endpoint="http://127.0.0.1:4318"), "test")
    assert not tracing.on()
