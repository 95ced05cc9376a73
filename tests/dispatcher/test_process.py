"""What careloom's processes do alike: logs that hold no patient data, threads that end together."""

from __future__ import annotations

import json
import logging
import threading

import pytest

from pipelines.errors import LedgerError
from pipelines.process import describe, run_threads
from pipelines.telemetry.log_lines import JsonLines

CANARY = "王小明"


def line(error: BaseException) -> dict[str, str]:
    """How an error that was raised here is logged."""

    def fails() -> None:
        raise error

    with pytest.raises(type(error)):
        fails()
    raised = (type(error), error, error.__traceback__)
    record = logging.LogRecord("pipelines.a", logging.ERROR, "file.py", 1, "it %s", ("broke",), raised)
    return dict(json.loads(JsonLines("dispatcher").format(record)))


def test_a_line_is_one_json_object_with_the_process():
    logged = line(LedgerError("row 7 is not there"))
    assert (logged["level"], logged["process"], logged["message"]) == ("error", "dispatcher", "it broke")
    assert logged["error"] == "LedgerError: row 7 is not there"
    assert logged["at"].startswith("test_process.py:")


def test_of_a_librarys_error_only_the_class_is_logged():
    logged = line(ValueError(f"cannot parse {CANARY}"))
    assert logged["error"] == "ValueError"
    assert CANARY not in json.dumps(logged, ensure_ascii=False)
    assert describe(KeyError(CANARY)) == "KeyError"


def test_threads_that_are_asked_to_end_end_well():
    stop = threading.Event()
    threading.Timer(0.05, stop.set).start()
    assert run_threads(stop, [("a", lambda: stop.wait() and None), ("b", lambda: stop.wait() and None)])


@pytest.mark.parametrize("way", ["raises", "returns"])
def test_a_thread_that_ends_by_itself_ends_all(way: str):
    stop = threading.Event()

    def ends() -> None:
        if way == "raises":
            raise ValueError(CANARY)

    assert not run_threads(stop, [("broken", ends), ("other", lambda: stop.wait() and None)])
    assert stop.is_set()
