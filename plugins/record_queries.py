"""Searches that more than one scenario makes."""

from __future__ import annotations

from datetime import timedelta

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
#: Problems that are over.
PAST = RecordQuery(
    "past",
    "Condition",
    {"patient": "{patient}", "clinical-status": "inactive,remission,resolved"},
    cap=20,
    sort="-recorded-date",
)


def recent(name: str, resource_type: str, *, days: int, cap: int, **params: str) -> RecordQuery:
    """What the patient's record holds of the last `days`, newest first, by the search parameter `date`."""
    about = {"patient": "{patient}", **params}
    return RecordQuery(name, resource_type, about, timedelta(days=days), "date", cap, "-date")
