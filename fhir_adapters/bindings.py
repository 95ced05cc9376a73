"""Required code bindings of the types that scenarios are triggered by: fhir.resources lets any code pass.

A status that is read wrongly starts or stops a scenario, so these are checked. Sources: the "Required" bindings on
https://hl7.org/fhir/R4/<type>.html and the same pages of R5. R4 and R4B agree on all of them.
"""

from __future__ import annotations

from fhir_adapters.event import FhirVersion

_REQUEST_STATUS = "draft active on-hold revoked completed entered-in-error unknown"
_REQUEST_INTENT = "proposal plan directive order original-order reflex-order filler-order instance-order option"
_EVENT_STATUS = "preparation in-progress not-done on-hold stopped completed entered-in-error unknown"
_RESULT_STATUS = "registered preliminary final amended corrected cancelled entered-in-error unknown"
_GENDER = "male female other unknown"

#: (type, element) -> codes; the element is a `code`. R4 and R4B.
_R4: dict[tuple[str, str], str] = {
    ("Appointment", "status"): (
        "proposed pending booked arrived fulfilled cancelled noshow entered-in-error checked-in waitlist"
    ),
    ("AllergyIntolerance", "type"): "allergy intolerance",
    ("AllergyIntolerance", "criticality"): "low high unable-to-assess",
    ("CarePlan", "status"): _REQUEST_STATUS,
    ("CarePlan", "intent"): "proposal plan order option",
    ("Communication", "status"): _EVENT_STATUS,
    ("Composition", "status"): "preliminary final amended entered-in-error",
    ("DiagnosticReport", "status"): f"{_RESULT_STATUS} partial appended",
    ("DocumentReference", "status"): "current superseded entered-in-error",
    ("DocumentReference", "docStatus"): "preliminary final amended entered-in-error",
    ("Encounter", "status"): (
        "planned arrived triaged in-progress onleave finished cancelled entered-in-error unknown"
    ),
    ("Flag", "status"): "active inactive entered-in-error",
    ("ImagingStudy", "status"): "registered available cancelled entered-in-error unknown",
    ("Immunization", "status"): "completed entered-in-error not-done",
    ("MedicationDispense", "status"): (
        "preparation in-progress cancelled on-hold completed entered-in-error stopped declined unknown"
    ),
    ("MedicationRequest", "status"): ("active on-hold cancelled completed entered-in-error stopped draft unknown"),
    ("MedicationRequest", "intent"): (
        "proposal plan order original-order reflex-order filler-order instance-order option"
    ),
    ("Observation", "status"): _RESULT_STATUS,
    ("Patient", "gender"): _GENDER,
    ("Procedure", "status"): _EVENT_STATUS,
    ("QuestionnaireResponse", "status"): "in-progress completed amended entered-in-error stopped",
    ("RelatedPerson", "gender"): _GENDER,
    ("RiskAssessment", "status"): _RESULT_STATUS,
    ("ServiceRequest", "status"): _REQUEST_STATUS,
    ("ServiceRequest", "intent"): _REQUEST_INTENT,
    ("Task", "status"): (
        "draft requested received accepted rejected ready cancelled in-progress on-hold failed completed "
        "entered-in-error"
    ),
    ("Task", "intent"): ("unknown proposal plan order original-order reflex-order filler-order instance-order option"),
}

_MORE_RESULTS_R5 = f"{_RESULT_STATUS} partial appended deprecated"

#: What R5 changed.
_R5: dict[tuple[str, str], str | None] = {
    ("AllergyIntolerance", "type"): None,  # a CodeableConcept since R5
    ("CarePlan", "intent"): "proposal plan order option directive",
    ("Composition", "status"): _MORE_RESULTS_R5,
    ("DiagnosticReport", "status"): f"{_RESULT_STATUS} partial appended modified",
    ("DocumentReference", "docStatus"): _MORE_RESULTS_R5,
    ("Encounter", "status"): (
        "planned in-progress on-hold discharged completed cancelled discontinued entered-in-error unknown"
    ),
    ("ImagingStudy", "status"): "registered available cancelled entered-in-error unknown inactive",
    ("MedicationRequest", "status"): (
        "active on-hold ended stopped completed cancelled entered-in-error draft unknown"
    ),
}

#: (type, element) -> system and codes; the element is a CodeableConcept with a required binding. All versions.
CONCEPTS: dict[tuple[str, str], tuple[str, frozenset[str]]] = {
    ("AllergyIntolerance", "clinicalStatus"): (
        "http://terminology.hl7.org/CodeSystem/allergyintolerance-clinical",
        frozenset(("active", "inactive", "resolved")),
    ),
    ("AllergyIntolerance", "verificationStatus"): (
        "http://terminology.hl7.org/CodeSystem/allergyintolerance-verification",
        frozenset(("unconfirmed", "presumed", "confirmed", "refuted", "entered-in-error")),
    ),
    ("Condition", "clinicalStatus"): (
        "http://terminology.hl7.org/CodeSystem/condition-clinical",
        frozenset(("active", "recurrence", "relapse", "inactive", "remission", "resolved", "unknown")),
    ),
    ("Condition", "verificationStatus"): (
        "http://terminology.hl7.org/CodeSystem/condition-ver-status",
        frozenset(("unconfirmed", "provisional", "differential", "confirmed", "refuted", "entered-in-error")),
    ),
}


def codes_of(version: FhirVersion) -> dict[tuple[str, str], frozenset[str]]:
    """(type, element) -> the codes that `version` allows there."""
    listed: dict[tuple[str, str], str | None] = {**_R4, **_R5} if version == "R5" else {**_R4}
    return {where: frozenset(codes.split()) for where, codes in listed.items() if codes is not None}
