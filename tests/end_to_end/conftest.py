"""One whole stack with both hospitals, and the demo run twice, for all tests of this folder that need them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.stack import hapi
from pipelines.stack.environment import Stack
from tests.end_to_end.demo import Run, run_demo
from tests.otlp import Collector, collecting


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """Where the stack's spans go."""
    with collecting() as taken:
        yield taken


@pytest.fixture(scope="session")
def stack(collector: Collector) -> Iterator[Stack]:
    """Broker, Airflow, model server, sekmet and, where it can be had, HAPI FHIR."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}")

    with tempfile.TemporaryDirectory(prefix="careloom-e2e-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        spans = {"tracing": {"endpoint": collector.url}}
        with Stack(Path(folder) / "state", hapi=hapi.missing() is None, overrides=spans, say=say) as running:
            say(f"broker {running.broker.name}, model {running.model.server.name}")
            running.start()
            yield running


@pytest.fixture(scope="session", params=[pytest.param((), marks=pytest.mark.long, id="vllm"), ("--stand-in",)])
def model(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """CI has the time for the stand-in here, and lets vLLM answer under faults; `make chaos` has it for both."""
    chosen: tuple[str, ...] = request.param
    return chosen


@pytest.fixture(scope="session")
def state(tmp_path_factory: pytest.TempPathFactory, model: tuple[str, ...]) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "state"
    folder.parent.chmod(0o755)
    return folder


@pytest.fixture(scope="session")
def first(state: Path, model: tuple[str, ...]) -> Run:
    return run_demo(state, model)


@pytest.fixture(scope="session")
def second(state: Path, model: tuple[str, ...], first: Run) -> Run:
    return run_demo(state, model)
