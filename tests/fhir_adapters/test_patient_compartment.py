"""Each resource belongs to the patient it is about, to no patient, or is ambiguous and belongs to none."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_adapters.patient import patient_of

ANNA = {"reference": "Patient/anna"}
BEN = {"reference": "Patient/ben"}
DOCTOR = {"reference": "Practitioner/d"}


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ({"resourceType": "Patient", "id": "anna"}, "Patient/anna"),
        ({"resourceType": "Patient"}, None),
        ({"resourceType": "Encounter", "subject": ANNA}, "Patient/anna"),
        ({"resourceType": "Encounter", "subject": {"reference": "Group/g"}}, None),
        ({"resourceType": "AllergyIntolerance", "patient": ANNA, "recorder": BEN}, "Patient/anna"),
        ({"resourceType": "Appointment", "participant": [{"actor": DOCTOR}, {"actor": ANNA}]}, "Patient/anna"),
        ({"resourceType": "Appointment", "participant": [{"actor": BEN}, {"actor": ANNA}]}, None),
        ({"resourceType": "Appointment", "subject": ANNA, "participant": [{"actor": BEN}]}, "Patient/anna"),
        ({"resourceType": "Task", "for": ANNA, "owner": BEN}, "Patient/anna"),
        ({"resourceType": "Communication", "sender": ANNA, "recipient": [DOCTOR]}, "Patient/anna"),
        ({"resourceType": "Communication", "subject": BEN, "sender": ANNA}, "Patient/ben"),
        ({"resourceType": "QuestionnaireResponse", "subject": ANNA, "source": BEN}, "Patient/anna"),
        ({"resourceType": "QuestionnaireResponse", "source": ANNA}, "Patient/anna"),
        ({"resourceType": "Coverage", "beneficiary": ANNA, "payor": [BEN]}, "Patient/anna"),
        ({"resourceType": "Composition", "subject": [ANNA]}, "Patient/anna"),  # R5
        ({"resourceType": "DetectedIssue", "patient": ANNA}, "Patient/anna"),  # R4
        ({"resourceType": "DetectedIssue", "subject": ANNA}, "Patient/anna"),  # R5
        ({"resourceType": "Provenance", "target": [{"reference": "Flag/f"}, ANNA]}, "Patient/anna"),
        ({"resourceType": "Person", "link": [{"target": ANNA}, {"target": BEN}]}, None),
        ({"resourceType": "Organization", "id": "o"}, None),
        ({"resourceType": "Observation", "subject": {"reference": "Patient/anna/_history/3"}}, "Patient/anna"),
        ({"resourceType": "Observation", "subject": {"reference": "#p"}}, None),
        ({"resourceType": "Observation", "subject": {"reference": "Patient?identifier=x"}}, None),
        ({"resourceType": "Observation", "subject": {"identifier": {"value": "x"}}}, None),
        ({"resourceType": "Observation", "subject": {"reference": "Patient/../admin"}}, None),
        ({"resourceType": "Observation", "subject": "Patient/anna"}, None),
        ({"resourceType": "Observation", "subject": {"reference": 7}}, None),
        ({"resourceType": 7}, None),
    ],
)
def test_whose_a_resource_is(resource: dict[str, Any], expected: str | None) -> None:
    assert patient_of(resource) == expected


def test_an_absolute_reference_counts_only_at_the_source_itself() -> None:
    observation = {"resourceType": "Observation", "subject": {"reference": "https://h.example/fhir/Patient/anna"}}
    assert patient_of(observation, bases={"https://h.example/fhir"}) == "Patient/anna"
    assert patient_of(observation, bases={"https://other.example/fhir"}) is None
    assert patient_of(observation) is None


def test_a_reference_inside_a_bundle_is_resolved_by_full_url() -> None:
    observation = {"resourceType": "Observation", "subject": {"reference": "urn:uuid:1"}}
    assert patient_of(observation, aliases={"urn:uuid:1": "Patient/anna"}) == "Patient/anna"
    assert patient_of(observation) is None
