"""One whole stack with both hospitals, for all tests of this folder that need one."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.stack import hapi
from pipelines.stack.environment import Stack


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Broker, Airflow, model server, sekmet and, where it can be had, HAPI FHIR."""
    began = time.monotonic()

    def say(text: str) -> None:
        print(f"[{time.monotonic() - began:5.1f} s] {text}")

    with tempfile.TemporaryDirectory(prefix="careloom-e2e-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o755)
        with Stack(Path(folder) / "state", hapi=hapi.missing() is None, say=say) as running:
            say(f"broker {running.broker.name}, model {running.model.server.name}")
            running.start()
            yield running
