"""Lines of the log: what stands in them, for whom, and that nothing of a patient does."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from fhir_adapters import trace_context
from pipelines.config import Logging
from pipelines.errors import LedgerError
from pipelines.telemetry.log_context import hush
from pipelines.telemetry.log_lines import Discreet, JsonLines, be_discreet, set_up

CANARY = "王小明-Canary"


@pytest.fixture
def untouched() -> Iterator[None]:
    """The logging of the tests themselves is put back."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


def line(name: str, message: str, *arguments: Any, error: BaseException | None = None, **more: Any) -> dict[str, Any]:
    raised = (type(error), error, error.__traceback__) if error else None
    record = logging.LogRecord(name, logging.WARNING, "file.py", 1, message, arguments, raised)
    record.__dict__ |= more
    return dict(json.loads(JsonLines("gateway").format(record)))


def test_a_line_says_which_trace_it_belongs_to() -> None:
    token = trace_context.current.set(trace_context.derived("ab" * 32))
    try:
        assert line("pipelines.x", "done")["trace_id"] == "ab" * 16
    finally:
        trace_context.current.reset(token)
    assert "trace_id" not in line("pipelines.x", "done")


def test_of_a_library_that_we_do_not_know_nothing_is_written_that_was_put_into_its_line() -> None:
    assert line("somelib.parser", "cannot read %s", CANARY)["message"] == "cannot read %s"
    assert CANARY not in json.dumps(line("asyncio", f"never retrieved\nfuture: {CANARY}"), ensure_ascii=False)
    told = line("my_plugin.scenario", f"odd name {CANARY}")["message"]
    assert CANARY not in told and "file.py:1" in told
    assert line("kafka.conn", "connected to %s", "broker:9092")["message"] == "connected to broker:9092"


def test_where_somebody_else_writes_the_lines_a_plugins_text_is_taken_out_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    handler = logging.StreamHandler(sys.stdout)
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        be_discreet()
        be_discreet()
        plugin = logging.getLogger("my_plugin.scenario")
        plugin.error(f"odd name {CANARY}")
        plugin.error("odd name %s", CANARY)
        plugin.error("odd", exc_info=ValueError(CANARY))
        logging.getLogger("pipelines.x").error("ours: %d", 7)
    finally:
        root.removeHandler(handler)
        for other in root.handlers:
            other.filters[:] = [one for one in other.filters if not isinstance(one, Discreet)]
    told = capsys.readouterr().out
    assert CANARY not in told
    assert "odd name %s" in told and "ValueError at" in told and "ours: 7" in told


def test_of_an_error_that_is_not_ours_the_class_alone_is_written() -> None:
    written = line("pipelines.x", "it broke", error=ValueError(CANARY))
    assert written["error"] == "ValueError"
    assert line("pipelines.x", "it broke", error=LedgerError("row 7"))["error"] == "LedgerError: row 7"


def test_an_access_line_names_neither_query_nor_resource_nor_address() -> None:
    arguments = ("10.0.0.7:5", "PUT", f"/fhir/ward/Patient/{CANARY}?name={CANARY}", "1.1", 204)
    written = line("uvicorn.access", '%s - "%s %s HTTP/%s" %d', *arguments)
    assert (written["method"], written["path"], written["status"]) == ("PUT", "/fhir/ward/Patient/{id}", 204)
    assert CANARY not in json.dumps(written, ensure_ascii=False)
    assert "10.0.0.7" not in json.dumps(written)


@pytest.mark.usefixtures("untouched")
@pytest.mark.parametrize(
    ("terminal", "chosen", "text"),
    [(False, None, False), (True, None, True), (True, "json", False), (False, "text", True)],
)
def test_a_service_writes_json_and_a_person_at_a_terminal_reads_text(
    monkeypatch, capsys, terminal: bool, chosen: Any, text: bool
) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal, raising=False)
    set_up("dispatcher", Logging(format=chosen))
    logging.getLogger("pipelines.x").info("hello %d", 7, extra={"fields": {"source": "ward"}})
    written = capsys.readouterr().err.strip()
    if text:
        assert written.endswith("info     dispatcher: hello 7 source=ward")
    else:
        assert json.loads(written)["message"] == "hello 7"


def test_an_error_that_nobody_awaited_is_told_by_its_class(caplog) -> None:
    async def play() -> None:
        hush(asyncio.get_running_loop())
        lost = asyncio.get_running_loop().create_future()
        lost.set_exception(ValueError(CANARY))
        del lost
        await asyncio.sleep(0)

    asyncio.run(play())
    assert "an error reached nobody: ValueError" in caplog.text
    assert CANARY not in caplog.text
