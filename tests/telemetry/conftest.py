"""A collector, and a recorder that sends to it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from pipelines.config import Tracing
from pipelines.telemetry import tracing
from pipelines.telemetry.tracing_otel import OtelRecorder
from tests.otlp import Collector, collecting


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting() as taken:
        yield taken


@pytest.fixture
def recording(collector: Collector) -> Iterator[Callable[[], None]]:
    """Spans are on, and go to the collector; call it to have them sent."""
    recorder = OtelRecorder(Tracing(endpoint=collector.url, headers={"x-tenant": "ward"}), "test")
    tracing.use(recorder)
    yield lambda: tracing.flush(5)
    tracing.use(None)
    recorder.close()
