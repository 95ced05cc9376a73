"""Which tests go first, and which stay together in one process, where several run beside each other."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

_DEMO = "tests/end_to_end/test_demo_command.py"

#: The longest first: what waits for a stack's start and its faults leaves the cores to the small ones beside it.
_FIRST = (
    "tests/end_to_end/test_faults.py",
    _DEMO,
    "tests/end_to_end/test_panels.py",
    "tests/chaos/test_chaos_short.py",
    "tests/dispatcher/test_on_airflow.py",
)
#: File -> the file whose servers it needs: the demo's Prometheus, or the reference validator, which starts slowly.
_WITH = {
    "tests/end_to_end/test_panels.py": _DEMO,
    "tests/plugins/test_synthetic_patients.py": _DEMO,
    "tests/fhir_adapters/test_write_fence.py": _DEMO,
}


class ByStack(LoadFileScheduling):
    """Tests of a file stay together, and with them those that need the same servers."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return _WITH.get(file, file)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByStack:
    """In place of pytest-xdist's own: with pytest 9.2 its groups (3.8.0) are not kept together."""
    return ByStack(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones to the front, all others as they were."""
    rank = {file: place for place, file in enumerate(_FIRST)}
    items.sort(key=lambda item: rank.get(item.nodeid.partition("::")[0], len(rank)))
