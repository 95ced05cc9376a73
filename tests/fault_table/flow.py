"""The trickle of events that goes on all the while: patients are admitted at the hospital's own FHIR server."""

from __future__ import annotations

import threading
import time
import uuid
from typing import Any

import httpx

#: Seconds between two admissions, and the scenarios that each starts.
EVERY = 5.0
NOTE = "in_visit.admission_note"
EXAM = "in_visit.exam_recommendation"


class Hospital:
    """The hospital's staff: they speak to its FHIR server directly. Close it."""

    def __init__(self, base_url: str, token: str) -> None:
        headers = {"content-type": "application/fhir+json", "authorization": f"Bearer {token}"}
        self._http = httpx.Client(base_url=f"{base_url}/", headers=headers, timeout=10)
        self._lock = threading.Lock()

    def admit(self, mark: str = "") -> str:
        """A new patient comes in; returns the Encounter's id.

        Args:
            mark: stands in the patient's id.

        Raises:
            httpx.HTTPError: the server does not take it.
        """
        word = uuid.uuid4().hex[:12]
        patient = f"{mark}-{word}" if mark else f"fault-{word}"
        with self._lock:
            self._put({"resourceType": "Patient", "id": patient, "gender": "female", "birthDate": "1970-05-17"})
            self._put(
                {
                    "resourceType": "Encounter",
                    "id": f"e-{word}",
                    "status": "in-progress",
                    "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                    "subject": {"reference": f"Patient/{patient}"},
                    "period": {"start": "2026-11-22T08:00:00+00:00"},
                    "reasonCode": [{"text": "cough and fever for three days"}],
                }
            )
        return f"e-{word}"

    def close(self) -> None:
        """Give back the connection."""
        self._http.close()

    def _put(self, resource: dict[str, Any]) -> None:
        self._http.put(f"{resource['resourceType']}/{resource['id']}", json=resource).raise_for_status()


class Flow:
    """Admits somebody every `every` seconds, from the start until `close`.

    Attributes:
        every: may be changed.
        admitted, refused: so far.
    """

    def __init__(self, hospital: Hospital) -> None:
        self.hospital = hospital
        self.every = EVERY
        self.admitted = 0
        self.refused = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._go_on, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Nobody comes any more."""
        self._over.set()
        self._thread.join()

    def _go_on(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + self.every, time.monotonic() - self.every)
            try:
                self.hospital.admit()
                self.admitted += 1
            except httpx.HTTPError:
                self.refused += 1
