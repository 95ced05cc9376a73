"""Validation names paths and kinds, finds wrong codes, knows the versions apart, and repeats nothing of the body."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_adapters.errors import TooLarge
from fhir_adapters.event import FhirVersion
from fhir_adapters.operation_outcome import of_problems, of_refusal
from fhir_adapters.validate import MAX_PROBLEMS, Problem, problems

CANARY = "Zq7CanaryPatient"


def encounter(**more: Any) -> dict[str, Any]:
    return {"resourceType": "Encounter", "status": "in-progress", "class": {"code": "IMP"}, **more}


@pytest.mark.parametrize(
    ("resource", "version", "expected"),
    [
        (encounter(), "R4", []),
        (encounter(status="finished"), "R4", []),
        (encounter(status="completed"), "R4", [Problem("Encounter.status", "code-invalid")]),
        (
            encounter(status=7),
            "R4",
            [Problem("Encounter.status", "value"), Problem("Encounter.status", "code-invalid")],
        ),
        ({"resourceType": "Encounter", "status": "completed", "class": [{}]}, "R5", []),
        ({"resourceType": "Encounter", "status": "finished"}, "R5", [Problem("Encounter.status", "code-invalid")]),
        ({"resourceType": "Patient", "gender": "banana"}, "R4", [Problem("Patient.gender", "code-invalid")]),
        ({"resourceType": "Patient", CANARY: 1}, "R4", [Problem("Patient.?", "structure")]),
        ({"resourceType": "Patient", "birthDate": CANARY}, "R4", [Problem("Patient.birthDate", "value")]),
        ({"resourceType": "Patient", "name": {}}, "R4", [Problem("Patient.name", "structure")]),
        (
            {"resourceType": "Patient", "contact": [{}, {"gender": [CANARY]}]},
            "R4",
            [Problem("Patient.contact[1].gender", "value")],
        ),
        ({"resourceType": "Flag", "status": "active"}, "R4", None),
        ({"resourceType": CANARY}, "R4", [Problem("resourceType", "not-supported")]),
        ({"resourceType": "SubscriptionTopic"}, "R4", [Problem("resourceType", "not-supported")]),
        ({}, "R4", [Problem("resourceType", "required")]),
        ({"resourceType": "SubstanceSpecification"}, "R4", []),  # fhir.resources has no model of it
        (
            {
                "resourceType": "Condition",
                "subject": {"reference": "Patient/p"},
                "clinicalStatus": {
                    "coding": [
                        {"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": CANARY},
                        {"system": "http://local", "code": CANARY},
                    ]
                },
            },
            "R4",
            [Problem("Condition.clinicalStatus.coding[0].code", "code-invalid")],
        ),
        (
            {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": {"resourceType": CANARY}}]},
            "R4",
            None,
        ),
    ],
)
def test_problems_are_found_where_they_are(
    resource: dict[str, Any], version: FhirVersion, expected: list[Problem] | None
) -> None:
    found = problems(resource, version)
    if expected is None:
        assert found
    else:
        assert [*found] == expected
    assert CANARY not in str(found)
    assert CANARY not in str(of_problems(found))


def test_a_resource_with_thousands_of_problems_is_told_in_fifty() -> None:
    resource = {"resourceType": "Patient", "name": [{"given": CANARY}] * 3000}
    assert len(problems(resource, "R4")) == MAX_PROBLEMS


def test_nesting_too_deep_for_the_models_is_a_problem_not_a_crash() -> None:
    extension: dict[str, Any] = {"url": "u"}
    for _ in range(5000):
        extension = {"url": "u", "extension": [extension]}
    assert problems({"resourceType": "Patient", "extension": [extension]}, "R4")


def test_outcomes_carry_code_path_and_remedy() -> None:
    assert of_refusal(TooLarge("send less"))["issue"] == [
        {"severity": "error", "code": "too-long", "diagnostics": "send less"}
    ]
    (issue,) = of_problems([Problem("Flag.code", "required")])["issue"]
    assert issue == {
        "severity": "error",
        "code": "required",
        "diagnostics": "Flag.code: is missing",
        "expression": ["Flag.code"],
    }
