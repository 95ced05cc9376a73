"""Which patient a resource belongs to (patient compartment of R4, R4B and R5).

Source: https://hl7.org/fhir/R4/compartmentdefinition-patient.html and the same page of R5. Of a type's compartment
parameters only those are taken that say whom the resource is about, not who recorded it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from fhir_adapters.references import local, name_of

#: Where a type differs from "subject, else patient" (of which many types have one in R4 and the other in R5): paths in
#: order, of which the first that names a patient counts.
_PATHS: dict[str, tuple[str, ...]] = {
    "Appointment": ("subject", "participant.actor"),
    "AppointmentResponse": ("actor",),
    "AuditEvent": ("patient", "entity.what", "agent.who"),
    "Communication": ("subject", "sender", "recipient"),
    "CommunicationRequest": ("subject", "recipient", "sender"),
    "Coverage": ("beneficiary",),
    "EnrollmentRequest": ("candidate",),
    "Person": ("link.target",),
    "Provenance": ("patient", "target"),
    "QuestionnaireResponse": ("subject", "source"),
    "ResearchSubject": ("subject", "individual"),
    "Schedule": ("actor",),
    "SupplyRequest": ("deliverFor", "deliverTo"),
    "Task": ("for",),
    "Transport": ("for",),
}

_SUBJECT_OR_PATIENT = ("subject", "patient")


def patient_of(
    resource: Mapping[str, Any], *, bases: Collection[str] = (), aliases: Mapping[str, str] | None = None
) -> str | None:
    """ "Patient/<id>" that the resource belongs to; None where it belongs to none, or to more than one.

    An absolute reference counts only at one of `bases`: the patient of another server may be somebody else.

    Args:
        resource: a parsed resource.
        bases: base URLs of the source itself, without trailing slash.
        aliases: fullUrl -> "Type/id" of the Bundle around it, for references such as `urn:uuid:...`.
    """
    kind = resource.get("resourceType")
    if kind == "Patient":
        own = name_of(resource)
        return own.relative if own else None
    for path in _paths_of(kind):
        patients = {
            found
            for node in _at(resource, path.split("."))
            if (found := _patient_behind(node, bases, aliases or {})) is not None
        }
        if patients:
            return patients.pop() if len(patients) == 1 else None
    return None


def _paths_of(kind: object) -> tuple[str, ...]:
    return _PATHS.get(kind, _SUBJECT_OR_PATIENT) if isinstance(kind, str) else ()


def _at(node: Any, path: list[str]) -> Iterator[Any]:
    if isinstance(node, list):
        for item in node:
            yield from _at(item, path)
    elif not path:
        yield node
    elif isinstance(node, dict):
        yield from _at(node.get(path[0]), path[1:])


def _patient_behind(node: Any, bases: Collection[str], aliases: Mapping[str, str]) -> str | None:
    reference = node.get("reference") if isinstance(node, dict) else None
    if isinstance(reference, str):
        reference = aliases.get(reference, reference)
    found = local(reference, bases)
    return found.relative if found is not None and found.type == "Patient" else None
