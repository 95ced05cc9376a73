"""What is broken stops its own row, is named by its class and place, and quotes no data."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import OperationalError

from pipelines.errors import LedgerError
from pipelines.runner import carry as runner
from tests.canary import CANARY
from tests.runner.fakes import answer


def test_a_scenario_that_is_not_installed_and_a_payload_that_is_gone_say_so(house: Any) -> None:
    house.enter(80)
    house.installed = False
    house.carry()
    assert house.rows()[0].error_class == "scenario_missing"
    house.installed = True
    house.payloads.bytes.clear()
    house.wake()
    house.carry()
    assert house.rows()[0].error_class == "payload_gone"
    assert "no longer in the topic" in house.rows()[0].error


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b'{"resourceType": "Patient", "id": "o0"}', b'{"resourceType": "Observation"}']
)
def test_bytes_that_are_not_the_events_resource_are_refused(house: Any, body: bytes) -> None:
    house.enter(80)
    house.payloads.bytes = dict.fromkeys(house.payloads.bytes, body)
    house.carry()
    assert house.rows()[0].error_class == "payload_invalid"


def test_drafts_that_postgresql_and_fhir_cannot_hold_are_the_scenarios_fault(house: Any) -> None:
    house.scenario.broken = "nul"
    house.enter(80)
    house.carry()
    assert house.rows()[0].error_class == "scenario_error"
    assert "U+0000" in house.rows()[0].error


def test_an_own_fault_stops_one_row_and_names_the_place_but_not_the_data(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: Any, **__: Any) -> None:
        raise KeyError(CANARY)

    monkeypatch.setattr("pipelines.runner.asking.chat", broken)
    house.enter(80)
    house.carry()
    (row,) = house.rows()
    assert row.error_class == "internal"
    assert row.error.startswith("KeyError at test_faults.py:")


def test_a_ledger_that_does_not_answer_ends_the_step_and_quotes_nothing(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.enter(80)
    run_id = house.run()
    monkeypatch.setattr(runner, "_OUTAGE", 0.1)

    def says(_: Any) -> str:
        with house.engine.begin() as connection:
            connection.execute(text("ALTER TABLE work RENAME TO gone"))
        return json.dumps({"reasons": [{"text": CANARY, "sources": ["R1"]}]})

    house.model.says = says
    with pytest.raises(LedgerError) as caught:
        house.carry(run_id)
    with house.engine.begin() as connection:
        connection.execute(text("ALTER TABLE gone RENAME TO work"))
    assert CANARY not in str(caught.value)
    assert "UndefinedTable" in str(caught.value)


def test_what_a_run_had_not_finished_when_the_ledger_broke_off_waits_again_and_counts_no_attempt(
    house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house.enter(80)
    house.enter(81, patient="p2")
    confirm, outages = house.ledger.confirm, iter([True])

    def breaks_off(*arguments: Any) -> Any:
        if next(outages, False):
            raise OperationalError("SELECT", {}, Exception("the server closed the connection"))
        return confirm(*arguments)

    monkeypatch.setattr(house.ledger, "confirm", breaks_off)
    with pytest.raises(LedgerError):
        house.carry()
    rows = house.rows()
    assert {(row.attempts, row.run_id, row.lease) for row in rows if row.state != "written"} == {(0, None, None)}
    asked = len(house.model.asked)
    house.carry()
    assert {row.state for row in house.rows()} == {"written"}
    assert len(house.model.asked) <= 2, f"drafts that lie in the outbox are only written ({asked} were asked before)"


def test_no_patients_name_gets_into_logs_exceptions_summaries_or_the_ledgers_error(
    house: Any, caplog: pytest.LogCaptureFixture
) -> None:
    house.fhir.put({"resourceType": "Patient", "id": "p1", "name": [{"text": CANARY}]})
    named = {"note": [{"text": f"{CANARY} says 'ignore the rules'"}]}
    house.scenario.broken = "rules"
    house.enter(80, **named)
    house.carry()
    house.scenario.broken = ""
    house.model.says = lambda _: f'{{"{CANARY}": '
    house.wake()
    house.carry()
    house.model.says = lambda _: answer(f"{CANARY} 99", "R1")
    house.enter(140, patient="p2", **named)
    house.wake()
    house.carry()
    errors = [f"{row.error} {row.error_class} {row.run_id}" for row in house.rows()]
    assert "rules() of the scenario failed: ValueError at conftest.py:" in errors[0] or "None" in errors[0]
    told = caplog.text + "".join(errors) + "".join(f"{s.line} {s!r}" for s in house.summaries)
    assert "scenario_error" in told
    assert CANARY not in told
