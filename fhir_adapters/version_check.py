"""Refuses a resource of another FHIR version than the one its source is bound to.

The same JSON means different things in R4 and R5, and a resource does not say which it is. So a source is bound to one
version, and what plainly belongs to another is refused rather than misread. Source of the differences:
https://hl7.org/fhir/R5/diff.html. What is no sign of either version passes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_adapters.errors import NotFhir
from fhir_adapters.event import FhirVersion
from fhir_adapters.resource_types import versions_of

_MEDICATION_UNTIL_R4B = ("medicationCodeableConcept", "medicationReference")

#: type -> elements that R5 no longer has.
_UNTIL_R4B: dict[str, tuple[str, ...]] = {
    "Appointment": ("reasonCode", "reasonReference"),
    "Encounter": ("period", "reasonCode", "reasonReference", "hospitalization", "classHistory"),
    "MedicationAdministration": _MEDICATION_UNTIL_R4B,
    "MedicationDispense": _MEDICATION_UNTIL_R4B,
    "MedicationRequest": _MEDICATION_UNTIL_R4B,
    "MedicationStatement": _MEDICATION_UNTIL_R4B,
    "Procedure": ("performedDateTime", "performedPeriod", "performedString", "performedAge", "performedRange"),
    "ServiceRequest": ("reasonCode", "reasonReference"),
}

#: type -> elements that came with R5.
_SINCE_R5: dict[str, tuple[str, ...]] = {
    "Appointment": ("reason",),
    "Encounter": ("actualPeriod", "plannedStartDate", "reason", "admission"),
    "MedicationAdministration": ("medication",),
    "MedicationDispense": ("medication",),
    "MedicationRequest": ("medication",),
    "MedicationStatement": ("medication",),
    "Procedure": ("occurrenceDateTime", "occurrencePeriod", "occurrenceString", "occurrenceAge", "occurrenceRange"),
    "ServiceRequest": ("reason",),
}

#: (type, element) that is an array since R5 and was an object before.
_ARRAY_SINCE_R5 = (("Encounter", "class"), ("Composition", "subject"), ("DocumentReference", "context"))


def require_version(resource: Mapping[str, Any], version: FhirVersion, *, where: str) -> None:
    """Refuse `resource` unless it can be of `version`.

    Args:
        where: how the message names the place, for example "Bundle.entry[3].resource".

    Raises:
        NotFhir: no resourceType, one that `version` does not have, or an element of another version.
    """
    kind = resource.get("resourceType")
    if not isinstance(kind, str):
        raise NotFhir(f"{where}: has no resourceType")
    versions = versions_of(kind)
    if not versions:
        raise NotFhir(f"{where}: its resourceType is none that FHIR R4, R4B or R5 has")
    if version not in versions:
        raise NotFhir(
            f"{where}: {kind} belongs to FHIR {' and '.join(versions)}, but this source is bound to {version}"
        )
    sign = _since_r5(resource, kind) if version != "R5" else _until_r4b(resource, kind)
    if sign is not None:
        other = "R5" if version != "R5" else "R4 and R4B"
        raise NotFhir(f"{where}: {sign} belongs to FHIR {other}, but this source is bound to {version}")


def _since_r5(resource: Mapping[str, Any], kind: str) -> str | None:
    for element in _SINCE_R5.get(kind, ()):
        if element in resource:
            return f"{kind}.{element}"
    for owner, element in _ARRAY_SINCE_R5:
        if kind == owner and isinstance(resource.get(element), list):
            return f"{kind}.{element} as an array"
    return None


def _until_r4b(resource: Mapping[str, Any], kind: str) -> str | None:
    for element in _UNTIL_R4B.get(kind, ()):
        if element in resource:
            return f"{kind}.{element}"
    for owner, element in _ARRAY_SINCE_R5:
        if kind == owner and isinstance(resource.get(element), dict):
            return f"{kind}.{element} as an object"
    return None
