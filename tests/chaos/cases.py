"""The events that chaos is done to: each of a patient of its own, with a word in its text that no other patient has."""

from __future__ import annotations

import itertools
import random
import re
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from fhir_adapters.event import ClinicalEvent

SOURCE = "ward"
NOTE, TRIAGE = "in_visit.admission_note", "pre_visit.triage"
SCENARIOS = (NOTE, TRIAGE)

#: scenario -> the names of the drafts that a written event has, and of the Task that asks a person to decide on them.
DRAFTS = {
    NOTE: frozenset({"note", "document", "approve"}),
    TRIAGE: frozenset({"red-flag-chest-pain-acs", "urgent-review", "acuity", "department", "approve"}),
}
_LETTERS = "abcdefghij"
WORD = re.compile(r"quokka[a-j]+")
_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


def word_of(patient: str) -> str:
    """A patient's word: its number in letters, so that no rule about numbers takes it for a measurement."""
    return "quokka" + "".join(_LETTERS[int(digit)] for digit in re.sub(r"\D", "", patient))


@dataclass(frozen=True)
class Case:
    """One event to be sent.

    Attributes:
        scenario: that it starts.
        resource_id: of its Encounter or Appointment.
        version: of it.
        patient: the id alone.
        body: as sent.
    """

    scenario: str
    resource_id: str
    version: int
    patient: str
    body: bytes

    @property
    def kind(self) -> str:
        """The resource type."""
        return "Encounter" if self.scenario == NOTE else "Appointment"

    @property
    def event_id(self) -> str:
        """Its identity in the ledger."""
        return ClinicalEvent(
            SOURCE, "R4", self.kind, self.resource_id, str(self.version), None, None, self.body
        ).identity


class Cases:
    """Makes them; numbers go on from one fault to the next."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)

    def make(self, count: int, *, flagged: float = 0.6, seed: int = 1) -> list[Case]:
        """Events of as many patients.

        Args:
            count: how many.
            flagged: share of them that raise a red flag (an Appointment for chest pain at rest).
            seed: of the choice.
        """
        chance = random.Random(seed)
        return [self.one(TRIAGE if chance.random() < flagged else NOTE) for _ in range(count)]

    def versions(self, count: int) -> list[Case]:
        """So many versions of one Encounter, oldest first."""
        number = f"{next(self._numbers):07}"
        return [self._case(NOTE, number, version) for version in range(1, count + 1)]

    def one(self, scenario: str) -> Case:
        """One event."""
        return self._case(scenario, f"{next(self._numbers):07}", 1)

    def _case(self, scenario: str, number: str, version: int) -> Case:
        patient, id_ = f"p{number}", f"e{number}"
        make = _encounter if scenario == NOTE else _appointment
        resource = make(id_, patient, word_of(number))
        updated = (_EPOCH + timedelta(seconds=version)).isoformat(timespec="milliseconds")
        resource["meta"] = {"versionId": str(version), "lastUpdated": updated.replace("+00:00", "Z")}
        return Case(scenario, id_, version, patient, orjson.dumps(resource))


def _encounter(id_: str, patient: str, word: str) -> dict[str, Any]:
    return {
        "resourceType": "Encounter",
        "id": id_,
        "status": "in-progress",
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": f"Patient/{patient}"},
        "period": {"start": "2026-11-22T08:00:00+00:00"},
        "reasonCode": [{"text": f"cough, {word}"}],
    }


def _appointment(id_: str, patient: str, word: str) -> dict[str, Any]:
    return {
        "resourceType": "Appointment",
        "id": id_,
        "status": "booked",
        "description": f"chest pain at rest, {word}",
        "participant": [{"actor": {"reference": f"Patient/{patient}"}, "status": "accepted"}],
    }
