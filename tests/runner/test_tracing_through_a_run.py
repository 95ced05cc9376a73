"""One trace id from the sender to the model and the FHIR server, and to every line that is logged on the way."""

from __future__ import annotations

import logging
from typing import Any

import pytest
import structlog

from fhir_adapters import trace_context
from fhir_adapters.trace_context import outgoing, parse
from pipelines.telemetry.log_context import about


def test_what_is_asked_for_an_event_carries_the_events_trace(house: Any) -> None:
    seen: list[tuple[str, dict[str, str]]] = []
    house.enter(70)
    house.enter(80, patient="p2")
    say = house.model.says
    house.model.says = lambda request: seen.append(("model", outgoing())) or say(request)
    house.fhir.before_transaction = lambda: seen.append(("fhir", outgoing()))
    run = house.run()
    house.carry(run)
    traces = {trace_context.derived(event_id).traceparent for event_id in house.payloads.bytes}
    assert {headers["traceparent"] for what, headers in seen if what == "model"} == traces
    assert {headers["traceparent"] for what, headers in seen if what == "fhir"} == traces
    assert outgoing() == {}


def test_lines_that_are_logged_for_a_row_name_it_and_airflows_log_is_told_too(house: Any, caplog) -> None:
    lines: list[dict[str, Any]] = []

    class Taking(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append({"message": record.getMessage(), **about()})
            lines[-1]["airflow"] = structlog.contextvars.get_contextvars()

    house.enter(70)
    house.model.says = lambda _: "no JSON"
    handler = Taking()
    logging.getLogger("pipelines").addHandler(handler)
    try:
        run = house.run()
        house.carry(run)
    finally:
        logging.getLogger("pipelines").removeHandler(handler)
    [failed] = [entry for entry in lines if "model_invalid_output" in entry["message"]]
    [event_id] = house.payloads.bytes
    assert (failed["event_id"], failed["scenario"], failed["run_id"]) == (event_id, "in_visit.watch", run)
    assert failed["trace_id"] == event_id[:32]
    assert failed["airflow"].items() >= {"event_id": event_id, "run_id": run, "trace_id": event_id[:32]}.items()
    assert "event_id" not in structlog.contextvars.get_contextvars()


@pytest.mark.parametrize("many", [1, 2])
def test_a_run_of_one_event_goes_on_in_its_trace_and_a_run_of_many_has_its_own(house: Any, many: int) -> None:
    for n in range(many):
        house.enter(70, patient=f"p{n}")
    run = house.ledger.take_run("in_visit.watch", 100, traces=True)
    assert run is not None
    events = {event_id[:32] for event_id in house.payloads.bytes}
    assert {parse(trace).trace_id for trace in run.traces} == events
    assert (run.trace().trace_id in events) is (many == 1)
