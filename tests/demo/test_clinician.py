"""The demo's clinician decides on the same drafts in every run, by its own contract, and once."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from fhir_adapters.decision import decision_of
from fhir_adapters.drafts import build_transaction
from fhir_adapters.provenance import Author, Origin
from fhir_adapters.validate import problems
from pipelines.demo import clinician
from pipelines.errors import CareloomError
from plugins.scenario import Draft
from tests.ledger.conftest import START

EVENTS = [f"{n:064x}" for n in range(20)]


class Server:
    """What is used of `pipelines.demo.hospital.HospitalServer`."""

    def __init__(self) -> None:
        self.kept: dict[str, dict[str, Any]] = {}
        self.puts: list[dict[str, Any]] = []
        for event in [*EVENTS, "another"]:
            transaction = build_transaction(
                [Draft("note", {"resourceType": "Composition", "subject": {"reference": "Patient/p"}}, ())],
                identity=f"{event}:in_visit.note:1",
                author=Author("model", "m", "1"),
                origin=Origin("in_visit.note", "1", "p", "Encounter/e"),
                recorded=START,
                approval="please decide",
            )
            _, note, task, _ = (entry["resource"] for entry in transaction.bundle["entry"])
            place = f"Composition/{event[-4:]}"
            self.keep({**note, "id": event[-4:]})
            self.keep({**task, "id": event[-4:], "focus": {"reference": place}})

    def keep(self, resource: dict[str, Any]) -> None:
        self.kept[f"{resource['resourceType']}/{resource['id']}"] = resource

    def get(self, path: str) -> dict[str, Any]:
        return self.kept[path]

    def put(self, resource: dict[str, Any]) -> None:
        self.puts.append(resource)
        self.keep(resource)

    def approvals(self) -> list[dict[str, Any]]:
        return [one for one in reversed(self.kept.values()) if one["resourceType"] == "Task"]


@pytest.fixture
def server() -> Any:
    return Server()


def test_most_are_accepted_some_edited_some_rejected_and_some_left_waiting(server: Any) -> None:
    assert clinician.decide(server, EVENTS) == {"accepted": 10, "edited": 4, "rejected": 2}
    tasks = server.approvals()
    assert sum(task["status"] == "requested" for task in tasks) == 4 + 1  # one is of no event of the demo
    said = [one for task in tasks if (one := decision_of(task)) is not None]
    assert {one.who for one in said} == {"Practitioner/demo-clinician"}
    assert all(one.decided_at is not None and one.decided_at > START for one in said)
    assert "made up" in server.kept["Practitioner/demo-clinician"]["name"][0]["text"]
    assert [problems(one, "R4") for one in server.puts if one["resourceType"] != "Composition"] == [()] * 17


def test_an_edit_gives_the_draft_a_new_version_and_is_named_by_the_task(server: Any) -> None:
    clinician.decide(server, EVENTS)
    edited = [one for one in server.puts if one["resourceType"] == "Composition"]
    outputs = [o["valueReference"]["reference"] for task in server.approvals() for o in task.get("output", ())]
    assert sorted(outputs) == sorted(f"Composition/{one['id']}" for one in edited)
    assert all(one["meta"]["tag"][-1] == {"system": "urn:careloom:demo", "code": "edited"} for one in edited)


def test_a_second_time_nothing_is_decided(server: Any) -> None:
    clinician.decide(server, EVENTS)
    server.puts.clear()
    assert sum(clinician.decide(server, EVENTS).values()) == 0
    assert [one["resourceType"] for one in server.puts] == ["Practitioner"]


def test_it_waits_until_the_ledger_says_the_same_and_tells_where_it_does_not(
    server: Any, ledger_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert clinician.await_decisions(ledger_engine, server, EVENTS) == {}
    clinician.decide(server, EVENTS[:1])
    monkeypatch.setattr(clinician, "PATIENCE", 0.0)
    with pytest.raises(CareloomError, match=r"in the ledger: \{\}"):
        clinician.await_decisions(ledger_engine, server, EVENTS)
    with ledger_engine.begin() as connection:
        connection.execute(text(_DECIDED), {"event": EVENTS[0]})
    assert clinician.await_decisions(ledger_engine, server, EVENTS) == {"accepted": 1}


_DECIDED = """
WITH e AS (
    INSERT INTO events (event_id, source, fhir_version, resource_type, change, patient_key, topic, partition, "offset",
        received_at, durable_at, matched_at, matches)
    VALUES (:event, 'ward', 'R4', 'Encounter', 'written', 'p', 't', 0, 0, now(), now(), now(), 1)
), w AS (
    INSERT INTO work (event_id, scenario, scenario_version, stage, patient_key, state, not_before, received_at,
        durable_at, matched_at)
    VALUES (:event, 'in_visit.note', '1', 'in_visit', 'p', 'written', now(), now(), now(), now()) RETURNING id
)
INSERT INTO decisions (work_id, event_id, scenario, scenario_version, verdict, who, decided_at, received_at)
SELECT id, :event, 'in_visit.note', '1', 'accepted', 'Practitioner/demo-clinician', now(), now() FROM w
"""
