"""With its drafts goes one Task that asks a person to decide on them; it is none of them, and no draft is called so."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_adapters.approval import APPROVE, asks_for_approval
from fhir_adapters.drafts import AI_LABEL, DRAFT_SYSTEM, SCENARIO_TAG, Transaction, build_transaction
from fhir_adapters.drafts import parse_transaction_response as parse
from fhir_adapters.errors import FhirRejected
from fhir_adapters.provenance import Author, Origin
from fhir_adapters.validate import problems
from plugins.scenario import Draft

IDENTITY = f"{'e' * 64}:in_visit.note:1"
NOTE = {"resourceType": "Composition", "status": "preliminary", "subject": {"reference": "Patient/p"}}
ABOUT = {"subject": {"reference": "Patient/p"}, "encounter": {"reference": "Encounter/e"}}
RISK = {"resourceType": "RiskAssessment", "status": "preliminary", **ABOUT}


def build(*resources: dict[str, Any], approval: str | None = "please decide", part: str = "model") -> Transaction:
    return build_transaction(
        [Draft(f"draft{n}", resource, ()) for n, resource in enumerate(resources or (NOTE, RISK))],
        identity=IDENTITY,
        author=Author("model", "m", "1"),
        origin=Origin("in_visit.note", "1", "p", "Encounter/e/_history/1"),
        recorded=datetime(2026, 11, 22, 12, tzinfo=UTC),
        part=part,
        approval=approval,
    )


def task_of(transaction: Transaction) -> dict[str, Any]:
    [entry] = [e for e, name in zip(transaction.bundle["entry"], transaction.names, strict=True) if name == APPROVE]
    resource: dict[str, Any] = entry["resource"]
    return resource


def test_the_task_names_the_drafts_the_patient_the_encounter_and_who_asks() -> None:
    transaction = build()
    device, note, risk, _, _ = (entry["fullUrl"] for entry in transaction.bundle["entry"])
    task = task_of(transaction)
    assert asks_for_approval(task)
    assert (task["status"], task["intent"], task["description"]) == ("requested", "proposal", "please decide")
    assert task["focus"] == {"reference": note}
    assert [one["valueReference"]["reference"] for one in task["input"]] == [note, risk]
    assert {one["type"]["text"] for one in task["input"]} == {"draft"}
    assert (task["for"]["reference"], task["encounter"]["reference"]) == ("Patient/p", "Encounter/e")
    assert (task["requester"]["reference"], task["authoredOn"]) == (device, "2026-11-22T12:00:00.000+00:00")
    assert problems(task, "R4") == ()


def test_the_task_is_labelled_identified_and_conditional_as_the_drafts_are() -> None:
    transaction = build()
    task = task_of(transaction)
    key = f"{IDENTITY}:approve"
    assert task["meta"]["security"] == [AI_LABEL]
    assert task["meta"]["tag"] == [
        {"system": DRAFT_SYSTEM, "code": key},
        {"system": SCENARIO_TAG, "code": "in_visit.note@1"},
    ]
    assert task["identifier"] == [{"system": DRAFT_SYSTEM, "value": key}]
    requests = {entry["fullUrl"]: entry["request"] for entry in transaction.bundle["entry"]}
    assert len({request["ifNoneExist"] for request in requests.values()}) == len(requests) == 5
    assert build() == transaction


def test_provenance_names_the_task_last_and_by_its_identifier_so_that_it_is_told_from_the_drafts() -> None:
    transaction = build()
    targets = transaction.bundle["entry"][-1]["resource"]["target"]
    assert [set(target) for target in targets] == [{"reference"}, {"reference"}, {"reference", "identifier"}]
    assert targets[-1]["reference"] == transaction.bundle["entry"][3]["fullUrl"]
    assert targets[-1]["identifier"]["value"] == f"{IDENTITY}:approve"


def test_drafts_of_two_patients_or_encounters_or_of_none_leave_that_out() -> None:
    other = {**RISK, "subject": {"reference": "Patient/q"}, "encounter": {"reference": "Encounter/f"}}
    for resources in ((RISK, other), ({"resourceType": "Flag", "status": "active"},)):
        task = task_of(build(*resources))
        assert "for" not in task
        assert "encounter" not in task


def test_the_encounter_of_a_document_is_found_where_r4_has_it() -> None:
    document = {"resourceType": "DocumentReference", "context": {"encounter": [{"reference": "Encounter/e"}]}}
    assert task_of(build(document))["encounter"] == {"reference": "Encounter/e"}


def test_where_nobody_is_to_decide_nothing_is_added() -> None:
    assert build(approval=None).names == (None, "draft0", "draft1", None)


@pytest.mark.stack
def test_the_reference_validator_finds_no_error_in_the_task_before_and_after_it_is_decided_on(
    validator_errors: Callable[[dict[str, Any]], list[str]],
) -> None:
    task = task_of(build())
    output = [{"type": {"text": "edited"}, "valueReference": {"reference": "Composition/9"}}]
    owner = {"reference": "Practitioner/wang"}
    decided = {**task, "status": "completed", "owner": owner, "lastModified": "2026-11-22T12:30:00Z", "output": output}
    assert validator_errors(task) == validator_errors(decided) == []


@pytest.mark.parametrize("approval", [None, "please decide"])
def test_no_draft_is_called_as_the_task_is(approval: str | None) -> None:
    with pytest.raises(ValueError, match="choose another name"):
        build_transaction(
            [Draft(APPROVE, NOTE, ())],
            identity=IDENTITY,
            author=Author("model", "m", "1"),
            origin=Origin("in_visit.note", "1", "p", "Encounter/e"),
            recorded=datetime(2026, 11, 22, 12, tzinfo=UTC),
            approval=approval,
        )


def test_the_answer_is_read_for_the_task_too_and_last() -> None:
    places = ("Device/1", "Composition/2", "RiskAssessment/3", "Task/4", "Provenance/5")
    entries = [{"response": {"status": "201 Created", "location": f"{place}/_history/1"}} for place in places]
    answered = parse(build(), {"entry": entries})
    assert [(one.name, one.reference) for one in answered][-1] == (APPROVE, "Task/4")
    with pytest.raises(FhirRejected):
        parse(build(), {"entry": entries[:4]})
