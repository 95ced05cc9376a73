"""`careloom trace`: every second of an event has a name, every wait its reason, every failed try its class."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import typer
from sqlalchemy import text
from typer.testing import CliRunner

from fhir_adapters.decision import Verdict
from fhir_adapters.errors import FhirUnavailable
from pipelines.cli.trace import trace
from pipelines.cli.waterfall import Hop, Kind, hops
from pipelines.errors import LedgerError
from pipelines.ledger import Decision, EventRow, Incoming, Position, State
from pipelines.ledger.holdups import Holdup, Holdups
from pipelines.ledger.journey import find, journey, last, slowest
from tests.canary import CANARY
from tests.least_config import write_least_config


def waterfall(house: Any, n: int = 0) -> list[Hop]:
    way = journey(house.engine, list(house.payloads.bytes)[n])
    return hops(way, way.ways[0])


def called(house: Any, tmp_path: Path, *arguments: str) -> Any:
    file = write_least_config(
        tmp_path,
        ledger={"url": house.config.ledger.url.get_secret_value()},
        airflow={"url": "http://127.0.0.1:8080"},
    )
    app = typer.Typer()
    app.command()(trace)
    return CliRunner().invoke(app, [*arguments, "--config", str(file)], env={"COLUMNS": "120"})


def holes(found: list[Hop]) -> list[tuple[str, float]]:
    """What begins later than what came before it ended, and by how many seconds; below 0.02 s nothing is named."""
    gaps, at = [], found[0].start
    for hop in found:
        if (gap := (hop.start - at).total_seconds()) > 0.022:  # the journal counts whole milliseconds
            gaps.append((hop.what, gap))
        at = max(at, hop.end or hop.start)
    return gaps


def test_a_way_without_trouble_is_told_step_by_step_and_without_a_hole(house: Any) -> None:
    house.enter(120)
    run = house.run()
    house.ledger.run_posted(run)
    house.carry(run)
    found = waterfall(house)
    assert [hop.what for hop in found if hop.kind is Kind.WORK and hop.what != "in between"] == [
        "received, and durable in Kafka",
        "read and matched by the dispatcher",
        "run asked of Airflow",
        "bytes read from Kafka",
        "record read",
        "rules",
        "written to the FHIR server",
        "passages looked up",
        "model asked and answered",
        "guarded",
        "drafts in the outbox",
        "written to the FHIR server",
        "written",
    ]
    assert [hop.detail for hop in found if "FHIR" in hop.what] == ["rules", "model"]
    assert all(later.start >= earlier.start for earlier, later in pairwise(found))
    assert holes(found) == []
    assert {hop.run_id for hop in found[3:]} == {run}


def test_tries_that_failed_are_told_with_their_class_and_the_wait_after_them_with_its_reason(house: Any) -> None:
    house.enter(70)
    house.fhir.failures = [FhirUnavailable("GET Patient: 503", status=503)]
    house.carry(house.run())
    house.wake()
    with house.engine.begin() as connection:
        connection.execute(text("DELETE FROM breakers"))
    time.sleep(0.3)  # a wait that is too short to be told is not
    house.carry(house.run())
    found = waterfall(house)
    failed = [(hop.what, hop.detail) for hop in found if hop.kind is Kind.FAILED]
    assert failed == [("record read", "FhirUnavailable"), ("try failed", "fhir_unavailable fhir:ward")]
    after = found[found.index(next(h for h in found if h.what == "try failed")) + 1 :]
    assert [hop.detail for hop in after if hop.what == "waited"][:1] == ["backoff after fhir_unavailable, fhir:ward"]
    assert found[-1].what == "written"
    assert holes(found) == []


def test_work_behind_another_of_its_patient_says_behind_which(house: Any) -> None:
    house.enter(70)
    house.enter(71)
    first = house.ledger.take_run("in_visit.watch", 1)
    house.carry(first.run_id)
    house.carry(house.run())
    [waited] = [hop for hop in waterfall(house, 1) if hop.kind is Kind.WAIT and "goes first" in hop.detail]
    assert waited.detail == "work 1 of its patient goes first (written)"


@pytest.mark.parametrize(("why", "said"), [(Holdup.PAUSED, "its DAG is paused in Airflow"),
                                           (Holdup.MODEL_FULL, "its model has no room for more"),
                                           (Holdup.AIRFLOW_DOWN, "Airflow is down")])  # fmt: skip
def test_what_held_the_scenario_up_is_named(house: Any, why: Holdup, said: str, monkeypatch: Any) -> None:
    house.enter(70)
    with house.engine.begin() as connection:
        moved = "UPDATE work SET matched_at = matched_at - interval '10 s'"
        connection.execute(text(moved))
        now = float(connection.execute(text("SELECT extract(epoch FROM now())")).scalar_one())
    held = Holdups()
    monkeypatch.setattr("time.time", lambda: now - 8)
    held.note("in_visit.watch", why)
    monkeypatch.setattr("time.time", lambda: now - 1)
    run = house.ledger.take_run("in_visit.watch", 10, held=held.until_now("in_visit.watch"))
    waits = [(hop.detail, round(hop.seconds(run_end(house)))) for hop in waterfall(house) if hop.what == "waited"]
    assert (said, 7) in waits
    house.carry(run.run_id)


def run_end(house: Any) -> Any:
    with house.engine.begin() as connection:
        return connection.execute(text("SELECT clock_timestamp()")).scalar_one()


def test_what_waits_now_says_so_as_careloom_top_does(house: Any) -> None:
    house.enter(70)
    house.fhir.failures = [FhirUnavailable("GET Patient: 503", status=503)]
    house.carry(house.run())
    with house.engine.begin() as connection:
        connection.execute(text("UPDATE work SET not_before = now() + interval '1 hour'"))
    last_hop = waterfall(house)[-1]
    assert (last_hop.what, last_hop.end) == ("waits", None)
    assert last_hop.detail.startswith("fhir_unavailable backoff until")


def test_a_dead_letter_names_the_command_that_shows_it(house: Any) -> None:
    house.scenario.broken = "rules"
    house.enter(70)
    while house.rows()[0].state != State.PARKED.value:
        house.carry(house.run())
        house.wake()
    found = waterfall(house)
    assert [hop.what for hop in found if hop.kind is Kind.FAILED][-2:] == ["rules", "failed for good"]
    assert (found[-1].what, found[-1].detail) == ("dead letter", "for a person: careloom dead-letters show 1")


def test_an_event_is_found_by_whatever_id_a_person_has_of_it(house: Any) -> None:
    house.enter(70)
    run = house.run()
    house.carry(run)
    [event_id] = house.payloads.bytes
    for name in (event_id, event_id[:8], event_id[:32], "1", run):
        assert find(house.engine, name) == [event_id]
    assert last(house.engine) == slowest(house.engine, 1e9) == last(house.engine, "in_visit.watch") == event_id
    assert last(house.engine, "none.such") is None
    for wrong in ("zzz", "ab", "999", "20260101T000000-aaaaaaaaaaaa", "%"):
        with pytest.raises(LedgerError, match="careloom trace --last"):
            find(house.engine, wrong)


def test_the_command_shows_a_waterfall_with_the_run_in_airflow_and_nothing_of_the_patient(
    house: Any, tmp_path: Path
) -> None:
    house.enter(120, note=[{"text": CANARY}], patient=CANARY)
    house.fhir.put({"resourceType": "Patient", "id": CANARY})
    run = house.run()
    house.ledger.run_posted(run)
    house.carry(run)
    shown = called(house, tmp_path, "--last")
    assert shown.exit_code == 0, shown.output
    assert "in_visit.watch 1: written" in shown.output
    assert f"http://127.0.0.1:8080/dags/in_visit.watch/runs/{run}" in shown.output
    assert "model asked and answered" in shown.output
    whole = json.loads(called(house, tmp_path, "1", "--json").output)
    assert [hop["what"] for hop in whole["ways"][0]["hops"]][-1] == "written"
    key = house.rows()[0].patient_key
    for said in (shown.output, json.dumps(whole)):
        assert CANARY not in said
        assert key not in said
    assert called(house, tmp_path).exit_code == 2
    assert called(house, tmp_path, "--slowest", "soon").exit_code == 2


def test_a_decision_is_the_last_hop_with_its_verdict_and_wait_and_without_a_name(house: Any, tmp_path: Path) -> None:
    house.enter(80)
    house.carry()
    [row] = house.rows()
    told = decided(house, row.event_id, row.written_at + timedelta(hours=2))
    house.ledger.record([told])
    hop = waterfall(house)[-1]
    assert (hop.what, hop.kind, hop.detail) == ("decided", Kind.WAIT, "rejected by a person")
    assert hop.seconds(row.written_at) == 7200
    for shown in (called(house, tmp_path, "--last").output, called(house, tmp_path, "--last", "--json").output):
        assert "decided" in shown
        assert "wang" not in shown


def test_a_decision_that_another_clock_dates_before_the_drafts_waited_no_time(house: Any) -> None:
    house.enter(80)
    house.carry()
    [row] = house.rows()
    house.ledger.record([decided(house, row.event_id, row.written_at - timedelta(minutes=1))])
    assert waterfall(house)[-1].seconds(row.written_at) == 0


def decided(house: Any, event_id: str, at: datetime) -> Incoming:
    """The event of the Task by which a person has rejected the drafts of an event."""
    position = Position("careloom.events", 0, house.entered)
    event = replace(journey_event(house, event_id), event_id="task", resource_type="Task", position=position)
    decision = Decision(f"{event_id}:in_visit.watch:1", Verdict.REJECTED, "Practitioner/wang", at)
    return Incoming(position, event, decision=decision)


def journey_event(house: Any, event_id: str) -> EventRow:
    with house.engine.connect() as connection:
        row = connection.execute(text("SELECT * FROM events WHERE event_id = :id"), {"id": event_id}).one()
    return EventRow.of(row)
