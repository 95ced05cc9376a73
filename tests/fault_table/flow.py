"""The trickle of events that goes on all the while: patients are admitted at the hospital's own FHIR server."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import httpx

from tests.fault_table.letters import STATUS

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

    def admit(self, mark: str = "", status: str = "in-progress") -> str:
        """A new patient comes in; returns the Encounter's id.

        Args:
            mark: stands in the patient's id.
            status: of the Encounter; one that is cancelled starts no scenario.

        Raises:
            httpx.HTTPError: the server does not take it.
        """
        word = uuid.uuid4().hex[:12]
        reason = {"reasonCode": [{"text": "cough and fever for three days"}]}
        with self._lock:
            self._register(patient := f"{mark or 'fault'}-{word}")
            self._encounter(f"e-{word}", patient, status, reason)
        return f"e-{word}"

    def letter(self, ward: str, *, late: int = 0, patient: str = "") -> None:
        """A letter of a ward is due.

        Args:
            late: seconds that the FHIR server will take to write it (`front.patience`).
            patient: who was registered before; a new one where none is named.

        Raises:
            httpx.HTTPError: the server does not take it.
        """
        word = uuid.uuid4().hex[:12]
        with self._lock:
            if not patient:
                self._register(patient := f"written-after-{late}-{word}")
            self._encounter(f"l-{word}", patient, STATUS, {"serviceType": {"text": ward}})

    def register(self, patient: str) -> str:
        """A patient is known from now on; returns the id."""
        with self._lock:
            self._register(patient)
        return patient

    def close(self) -> None:
        """Give back the connection."""
        self._http.close()

    def _register(self, patient: str) -> None:
        self._put({"resourceType": "Patient", "id": patient, "gender": "female", "birthDate": "1970-05-17"})

    def _encounter(self, name: str, patient: str, status: str, more: dict[str, Any]) -> None:
        self._put(
            {
                "resourceType": "Encounter",
                "id": name,
                "status": status,
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": {"reference": f"Patient/{patient}"},
                "period": {"start": "2026-11-22T08:00:00+00:00"},
                **more,
            }
        )

    def _put(self, resource: dict[str, Any]) -> None:
        self._http.put(f"{resource['resourceType']}/{resource['id']}", json=resource).raise_for_status()


class Flow:
    """Sends something every `every` seconds, from the start until `close`.

    Args:
        send: called with 0, 1, 2 ...

    Attributes:
        every: may be changed.
        paused: whether nothing is sent for now.
        admitted, refused: so far.
    """

    def __init__(self, send: Callable[[int], object], every: float = EVERY) -> None:
        self.every = every
        self.paused = False
        self.admitted = 0
        self.refused = 0
        self._send = send
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
            if self.paused:
                continue
            try:
                self._send(self.admitted + self.refused)
                self.admitted += 1
            except httpx.HTTPError:
                self.refused += 1
