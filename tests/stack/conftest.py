"""A state folder's ports and secrets, and a supervisor that is stopped after the test."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipelines.stack import processes
from pipelines.stack.settings import Kept, keep
from pipelines.stack.supervisor import Supervisor


@pytest.fixture
def kept(tmp_path: Path) -> Kept:
    """Random free ports and new secrets in an empty state folder."""
    return keep(tmp_path / "state", usual_ports=False)


@pytest.fixture
def stack_id() -> Iterator[str]:
    """The mark of this test's processes; none is left afterwards, whatever the test did."""
    made = uuid.uuid4().hex
    yield made
    processes.end(made, grace=0)


@pytest.fixture
def supervisor(stack_id: str, tmp_path: Path) -> Iterator[Supervisor]:
    """A supervisor of this test's own."""
    made = Supervisor(stack_id, tmp_path / "logs")
    yield made
    made.stop()
