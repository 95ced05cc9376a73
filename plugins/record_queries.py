"""Searches that more than one scenario makes."""

from __future__ import annotations

from plugins.scenario import RecordQuery

PROBLEMS = RecordQuery(
    "problems",
    "Condition",
    {"patient": "{patient}", "clinical-status": "active,recurrence,relapse"},
    cap=20,
    sort="-recorded-date",
)
MEDICATIONS = RecordQuery(
    "medications", "MedicationRequest", {"patient": "{patient}", "status": "active"}, cap=20, sort="-authoredon"
)
#: Not filtered by status on the server: an allergy whose status was never recorded must not be missed.
ALLERGIES = RecordQuery("allergies", "AllergyIntolerance", {"patient": "{patient}"}, cap=20, sort="-date")
