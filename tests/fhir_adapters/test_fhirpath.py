"""FHIRPath predicates hold or not; what is no FHIRPath is refused when compiled, and data never shows in an error."""

from __future__ import annotations

from typing import Any

import pytest

from fhir_adapters import fhirpath

CANARY = "Zq7CanaryPatient"
ENCOUNTER: dict[str, Any] = {"resourceType": "Encounter", "status": "in-progress", "class": {"code": "IMP"}}
OBSERVATION: dict[str, Any] = {"resourceType": "Observation", "valueQuantity": {"value": 6.2, "unit": CANARY}}


@pytest.mark.parametrize(
    ("expression", "resource", "expected"),
    [
        ("Encounter.status = 'in-progress' and Encounter.class.code = 'IMP'", ENCOUNTER, True),
        ("Encounter.status = 'finished'", ENCOUNTER, False),
        ("Encounter.class", ENCOUNTER, True),
        ("Encounter.period", ENCOUNTER, False),
        ("Encounter.period.exists()", ENCOUNTER, False),
        ("Observation.value.value > 6", OBSERVATION, True),  # the choice type by the R4 model
        ("Patient.active", OBSERVATION, False),
    ],
)
def test_an_expression_holds_or_not(expression: str, resource: dict[str, Any], expected: bool) -> None:
    assert fhirpath.compile(expression)(resource) is expected


def test_compiling_is_done_once() -> None:
    assert fhirpath.compile("Encounter.class") is fhirpath.compile("Encounter.class")


@pytest.mark.parametrize("expression", ["Encounter.status =", "Foo((", "%%", "", "a b", "'open", "iif("])
def test_what_is_no_fhirpath_is_refused_when_compiled(expression: str) -> None:
    with pytest.raises(fhirpath.FhirPathError):
        fhirpath.compile(expression)


@pytest.mark.parametrize("expression", ["nosuch()", "Observation.value > 5", "Observation.value.unit + 1"])
def test_an_expression_that_fails_on_a_resource_says_so_without_its_data(expression: str) -> None:
    with pytest.raises(fhirpath.FhirPathError) as failure:
        fhirpath.compile(expression)(OBSERVATION)
    assert CANARY not in str(failure.value)
    assert failure.value.__cause__ is None
