"""The journal of a row: an entry for each try, how it ended, and never more than is kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sqlalchemy import text

from pipelines.errors import ErrorClass, StepFailed, Waits
from pipelines.ledger import Inference, Ledger, State, Written
from pipelines.ledger.tries import KEPT
from pipelines.telemetry.steps import Step, begin, timed

NOTE = "in_visit.note"


@pytest.fixture
def journal(ledger_engine) -> Any:
    """The entries of the only row, and the runs of them by number."""

    def look() -> list[dict[str, Any]]:
        with ledger_engine.begin() as connection:
            return list(connection.execute(text("SELECT journal FROM work")).scalar_one() or [])

    return look


def taken(ledger: Ledger) -> Any:
    with ledger._engine.begin() as connection:
        connection.execute(text("UPDATE work SET not_before = now()"))
    run = ledger.take_run(NOTE, 10)
    assert run is not None
    [item] = ledger.claim(run.run_id, 60)
    return item


def test_each_try_leaves_its_run_its_end_and_its_steps(ledger: Ledger, make, journal) -> None:
    ledger.record([make(0)])
    begin()
    with pytest.raises(ValueError, match="x"), timed(Step.RULES):
        raise ValueError("x")
    with timed(Step.MODEL, "small"):
        pass
    first = taken(ledger)
    ledger.failed(first, StepFailed(ErrorClass.FHIR_UNAVAILABLE, "away"), dependency="fhir:hospital")
    second = taken(ledger)
    ledger.wait(second, Waits("down", dependency="model:small"))
    third = taken(ledger)
    ledger.written(ledger.inferred(third, Inference({"drafts": []}, {})), Written(["Flag/1"], 1, 0))
    entries = journal()
    assert [entry["end"] for entry in entries] == ["failed", "waits", "inferred", "written"]
    assert [entry["run"] for entry in entries] == [first.run_id, second.run_id, third.run_id, third.run_id]
    assert (entries[0]["class"], entries[0]["for"], entries[1]["for"]) == (
        "fhir_unavailable",
        "fhir:hospital",
        "model:small",
    )
    assert [(name, *rest) for name, _, _, *rest in entries[0]["steps"]] == [
        ("rules", "", "ValueError"),
        ("model", "small"),
    ]
    assert [entry["to"] for entry in entries] == sorted(entry["to"] for entry in entries)


def test_a_lost_worker_and_a_persons_decision_are_told_too(ledger: Ledger, make, journal) -> None:
    ledger.record([make(0)])
    item = taken(ledger)
    ledger.release_run(item.run_id, "failed")
    item = taken(ledger)
    assert ledger.failed(item, StepFailed(ErrorClass.PAYLOAD_GONE, "gone")) is State.PARKED
    ledger.decide_dead_letter(item.id, State.WAITING, by="ann", why="mended")
    assert [(e["end"], e.get("class")) for e in journal()] == [
        ("lost", "worker_lost"),
        ("parked", "payload_gone"),
        ("retried", None),
    ]
    assert "ann" not in json.dumps(journal())


def test_a_row_that_fails_for_ever_keeps_its_first_entry_and_the_last_ones(ledger: Ledger, make, journal) -> None:
    ledger.record([make(0)])
    runs = []
    for _ in range(KEPT + 3):
        item = taken(ledger)
        runs.append(item.run_id)
        ledger.give_back(item)
    kept = [entry["run"] for entry in journal()]
    assert kept == [runs[0], *runs[-KEPT + 1 :]]
