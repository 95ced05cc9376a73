"""Which tests go first, and which stay together in one process, where several run beside each other."""

from __future__ import annotations

from typing import Any

import pytest
from xdist.scheduler import LoadFileScheduling

_DEMO = "tests/end_to_end/test_demo_command.py"

#: The longest first: what waits for a stack's start and its faults leaves the cores to the small ones beside it. The
#: other two that start much come where these are over, before the tests of this folder.
_FIRST = ("tests/end_to_end/test_faults.py", _DEMO, "tests/end_to_end/test_panels.py")
_LATER = ("tests/chaos/test_chaos_short.py", "tests/dispatcher/test_on_airflow.py")
_BEFORE = "tests/models/"
#: File -> the file whose servers it needs: the demo's Prometheus, or the reference validator, which starts slowly.
_WITH = {
    "tests/end_to_end/test_panels.py": _DEMO,
    "tests/plugins/test_synthetic_patients.py": _DEMO,
    "tests/fhir_adapters/test_write_fence.py": _DEMO,
}
#: Folders whose tests share one server.
_ONE_SERVER = ("tests/monitoring/airflow_page/",)


class ByStack(LoadFileScheduling):
    """Tests of a file stay together, and with them those that need the same servers."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return next((folder for folder in _ONE_SERVER if file.startswith(folder)), _WITH.get(file, file))


def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> ByStack:
    """In place of pytest-xdist's own: with pytest 9.2 its groups (3.8.0) are not kept together."""
    return ByStack(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long ones to the front, those that start much after them, all others as they were."""

    def rank(item: pytest.Item) -> tuple[int, str]:
        file = item.nodeid.partition("::")[0]
        if file in _FIRST:
            return _FIRST.index(file), ""
        return len(_FIRST), _BEFORE if file in _LATER else file

    items.sort(key=rank)
