"""The record is read as the scenario says, of its own patient alone, and whole or not at all."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_adapters.errors import FhirRejected, FhirUnavailable


def test_the_record_is_asked_for_as_the_scenario_says_and_other_patients_are_kept_out(house: Any) -> None:
    mine, other = {"reference": "Patient/p1"}, {"reference": "Patient/p2"}
    house.fhir.found["Condition"] = [
        {"resourceType": "Condition", "id": "a", "subject": mine},
        {"resourceType": "Condition", "id": "b", "subject": other},
        {"resourceType": "Condition", "id": "c", "subject": mine},
    ]
    house.fhir.found["DocumentReference"] = [
        {"resourceType": "DocumentReference", "id": "d"},
        {"resourceType": "Practitioner", "id": "e"},
        {"resourceType": "DocumentReference", "id": "f", "subject": {"reference": "http://elsewhere.test/Patient/p1"}},
    ]
    house.enter("7.20")
    house.carry()
    (case,) = house.scenario.cases
    assert [condition["id"] for condition in case.get("problems")] == ["a"]
    assert [resource["id"] for resource in case.get("notes")] == ["e"]
    assert case.truncated == {"problems"}
    assert case.patient["id"] == "p1"
    assert case.now.tzinfo is not None
    assert (case.locale, str(case.trigger["valueQuantity"]["value"])) == ("en", "7.20")
    assert "pulse 7.20" in house.model.asked[0].messages[1]["content"]
    searches = dict(house.fhir.searches)
    assert searches["Condition"] == {"patient": "Patient/p1", "_sort": "-recorded-date", "_count": "3"}
    assert searches["DocumentReference"]["encounter"] == "Encounter/e1"
    assert searches["DocumentReference"]["date"] == "ge2025-12-30T00:00:00Z"


def test_a_query_without_its_encounter_is_not_run_and_a_patient_is_read_once_a_batch(house: Any) -> None:
    house.enter(80, encounter=None)
    house.enter(81, encounter={"reference": "http://elsewhere.test/Encounter/e1"})
    house.carry()
    assert {kind for kind, _ in house.fhir.searches} == {"Condition"}
    assert house.fhir.reads == ["Patient/p1"]


def test_a_patient_that_is_not_there_leaves_the_case_without_one(house: Any) -> None:
    house.enter(80, patient="gone")
    house.carry()
    assert house.scenario.cases[0].patient is None
    assert house.rows()[0].state == "written"


@pytest.mark.parametrize(
    ("failure", "error_class", "attempts"),
    [
        (FhirUnavailable("GET Patient: 503", status=503, retry_after=7.0), "fhir_unavailable", 0),
        (FhirRejected("GET Condition: 400", status=400), "fhir_rejected", 1),
        (FhirRejected("GET Patient: 401", status=401), "fhir_unavailable", 0),
    ],
)
def test_a_record_that_cannot_be_read_whole_is_not_worked_on(
    house: Any, failure: Exception, error_class: str, attempts: int
) -> None:
    house.enter(140)
    house.fhir.failures = [failure]
    house.carry()
    (row,) = house.rows()
    assert (row.state, row.error_class, row.attempts) == ("waiting", error_class, attempts)
    assert house.model.asked == []
    assert house.fhir.transactions == []
