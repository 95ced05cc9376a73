"""A name in an event, in the record and in answers is in no line of any log and in no span, whatever fails."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from sqlalchemy.exc import DataError

from fhir_adapters.fhir_client import FhirClient
from pipelines.config import Tracing
from pipelines.errors import LedgerError
from pipelines.ledger import Ledger
from pipelines.runner import carry as runner
from pipelines.telemetry import tracing
from pipelines.telemetry.log_lines import JsonLines, TextLines
from pipelines.telemetry.tracing_otel import OtelRecorder
from tests.canary import CANARY


@pytest.fixture
def lines() -> Iterator[list[io.StringIO]]:
    """Everything that is logged, at every level, in both formats."""
    root, written = logging.getLogger(), []
    before = root.level
    for made in (JsonLines("task"), TextLines("task")):
        handler = logging.StreamHandler(io.StringIO())
        handler.setFormatter(made)
        written.append(handler)
        root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield [handler.stream for handler in written]
    root.setLevel(before)
    for handler in written:
        root.removeHandler(handler)


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    exporter = InMemorySpanExporter()
    recorder = OtelRecorder(Tracing(endpoint="http://nowhere.test"), "task", exporter)
    tracing.use(recorder)
    yield exporter
    tracing.use(None)
    recorder.close()


def bad_json(house: Any, _: Any) -> None:
    house.payloads.bytes = {event_id: b'{"name": "' + CANARY.encode() for event_id in house.payloads.bytes}


def a_rule_that_quotes(house: Any, _: Any) -> None:
    house.scenario.broken = "rules"


def a_model_that_says_garbage(house: Any, _: Any) -> None:
    house.model.says = lambda request: f"I am {CANARY}, not JSON"


def a_refusal_that_quotes(house: Any, _: Any) -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        said = {"resourceType": "OperationOutcome", "issue": [{"severity": "error", "code": "invalid",
                                                               "diagnostics": f"{CANARY} is no name"}]}  # fmt: skip
        return httpx.Response(422, json=said, headers={"location": f"http://h/Patient?name={CANARY}"})

    client = FhirClient("http://hospital.test/fhir", transport=httpx.MockTransport(refuse))
    house.fhir.transaction = client.transaction


def a_database_that_quotes(house: Any, monkeypatch: Any) -> None:
    def inferred(*_: Any) -> None:
        raise DataError(f"INSERT {CANARY}", {"drafts": CANARY}, Exception(f"invalid {CANARY}"))

    monkeypatch.setattr(Ledger, "inferred", inferred)


def an_error_that_nobody_thought_of(house: Any, _: Any) -> None:
    def breaks(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"what is {CANARY}?")

    house.fhir.search = breaks


FAULTS = (bad_json, a_rule_that_quotes, a_model_that_says_garbage, a_refusal_that_quotes, a_database_that_quotes,
          an_error_that_nobody_thought_of)  # fmt: skip


@pytest.mark.parametrize("fault", [None, *FAULTS], ids=lambda fault: getattr(fault, "__name__", "nothing fails"))
def test_it_is_nowhere(house: Any, lines: Any, spans: InMemorySpanExporter, monkeypatch: Any, fault: Any) -> None:
    monkeypatch.setattr(tracing, "_share", 1.0)
    monkeypatch.setattr(runner, "_OUTAGE", 0.1)
    house.enter(120, patient=CANARY, note=[{"text": CANARY}])
    house.fhir.put({"resourceType": "Patient", "id": CANARY, "name": [{"family": CANARY}]})
    with house.engine.begin() as connection:  # its sender has it traced
        connection.exec_driver_sql("UPDATE events SET traceparent = overlay(traceparent placing '01' from 54)")
    if fault:
        fault(house, monkeypatch)
    run = house.run()
    try:
        house.carry(run)
    except LedgerError:
        assert fault is a_database_that_quotes
    logging.getLogger("asyncio").error("Task exception was never retrieved\nfuture: <Task %s>", CANARY)
    tracing.flush(5)
    told = [json.loads(span.to_json()) for span in spans.get_finished_spans()]
    names = {span["name"].partition(" ")[0] for span in told}
    assert "carry" in names
    assert {"record", "rules", "model", "guards", "write"} <= names or fault
    [written, as_text] = [stream.getvalue() for stream in lines]
    if fault and fault is not a_database_that_quotes:
        assert f'"run_id":"{run}"' in written
    for text in (written, as_text, json.dumps(told, ensure_ascii=False)):
        assert CANARY not in text
