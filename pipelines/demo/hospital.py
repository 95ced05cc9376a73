"""The demo's side of the hospital: writes into its FHIR server as its own systems would, and counts what came back."""

from __future__ import annotations

import gzip
import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

import httpx

from fhir_adapters.decision import is_ours
from fhir_adapters.write_fence import is_fence
from pipelines.demo.journeys import Step
from pipelines.errors import CareloomError

_FHIR = {"content-type": "application/fhir+json", "accept": "application/fhir+json", "cache-control": "no-cache"}


#: Who is born before this day is over eighteen whenever the demo runs.
_BORN_BEFORE = "2008-11-01"


@dataclass(frozen=True, slots=True)
class DemoPatient:
    """One patient of the demo.

    Attributes:
        id: logical id of the Patient.
        problem: text of the newest problem in the record; None where there is none.
        bundle: transaction Bundle, as bytes.
        medicine: what the newest active prescription in the record names, as a CodeableConcept; None where none does.
        grown_up: whether the patient lives and is over eighteen.
    """

    id: str
    problem: str | None
    bundle: bytes
    medicine: Mapping[str, Any] | None = None
    grown_up: bool = False


def patients() -> list[DemoPatient]:
    """The patients that come with careloom, in a fixed order."""
    return [_patient(_unzip(file)) for file in _files() if file.name != "hospital.json.gz"]


def surroundings() -> bytes:
    """The organizations, locations and practitioners that the patients' records refer to: a transaction Bundle."""
    return next(_unzip(file) for file in _files() if file.name == "hospital.json.gz")


def _files() -> list[Traversable]:
    folder = resources.files("pipelines.demo") / "patients"
    return sorted((file for file in folder.iterdir() if file.name.endswith(".json.gz")), key=lambda file: file.name)


def _unzip(file: Traversable) -> bytes:
    return gzip.decompress(file.read_bytes())


def _patient(bundle: bytes) -> DemoPatient:
    records = [entry["resource"] for entry in json.loads(bundle)["entry"]]
    person = next(record for record in records if record["resourceType"] == "Patient")
    problems = sorted(
        (record for record in records if record["resourceType"] == "Condition" and _active(record)),
        key=lambda record: str(record.get("recordedDate", "")),
    )
    prescribed = sorted(
        (r for r in records if r["resourceType"] == "MedicationRequest" and r.get("status") == "active"),
        key=lambda r: str(r.get("authoredOn", "")),
    )
    medicines = [r["medicationCodeableConcept"] for r in prescribed if "medicationCodeableConcept" in r]
    return DemoPatient(
        person["id"],
        problems[-1]["code"].get("text") if problems else None,
        bundle,
        medicine=medicines[-1] if medicines else None,
        grown_up=person["birthDate"] < _BORN_BEFORE and "deceasedDateTime" not in person,
    )


def _active(condition: Mapping[str, Any]) -> bool:
    """An active clinical problem; Synthea also records social findings, which are no reason of an admission."""
    status = condition.get("clinicalStatus", {}).get("coding", [{}])[0].get("code")
    return status == "active" and "(disorder)" in condition.get("code", {}).get("text", "")


class HospitalServer:
    """The hospital's FHIR server, seen from the hospital.

    Args:
        base_url: its FHIR base.
        token: bearer token, where it needs one.

    Raises:
        CareloomError: from every method, when the server does not do what is asked.
    """

    def __init__(self, base_url: str, token: str | None = None) -> None:
        headers = {**_FHIR, **({"authorization": f"Bearer {token}"} if token else {})}
        self._http = httpx.Client(base_url=base_url.rstrip("/") + "/", headers=headers, timeout=120)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def wait_until_up(self, given_up: Callable[[], bool], seconds: float = 120.0) -> None:
        """Wait until the server answers, or whoever starts it has given up; what is wrong shows at the next call."""
        end = time.monotonic() + seconds
        while time.monotonic() < end and not given_up():
            with suppress(httpx.HTTPError):
                if self._http.get("metadata").is_success:
                    return
            time.sleep(0.2)

    def load(self, people: Iterable[DemoPatient], progress: Callable[[int], None]) -> int:
        """Load the patients' records, but for those that are there; returns the number of resources written."""
        written = 0
        loaded_surroundings = False
        for number, person in enumerate(people, 1):
            if self._ask("GET", f"Patient/{person.id}", allowed=(404, 410)).status_code != 200:
                if not loaded_surroundings:
                    written += self._transaction(surroundings())
                    loaded_surroundings = True
                written += self._transaction(person.bundle)
            progress(number)
        return written

    def _transaction(self, bundle: bytes) -> int:
        return len(self._ask("POST", "", content=bundle).json()["entry"])

    def happen(self, step: Step) -> str | None:
        """Let a step happen; returns the version it got, or None when it happened in an earlier run."""
        there = self._ask("GET", step.path, allowed=(404, 410))
        if there.status_code == 200 and int(there.json()["meta"]["versionId"]) >= step.version:
            return None
        answer = self._ask("PUT", step.path, content=json.dumps(step.resource, ensure_ascii=False).encode())
        return str(answer.json()["meta"]["versionId"])

    def version(self, step: Step) -> bytes:
        """The bytes of the step's version, as the server keeps it."""
        return self._ask("GET", f"{step.path}/_history/{step.version}").content

    def get(self, path: str) -> dict[str, Any]:
        """A resource as it is now, by "Type/id"."""
        found: dict[str, Any] = self._ask("GET", path).json()
        return found

    def put(self, resource: Mapping[str, Any]) -> None:
        """Write a resource, over the very version that was read where it was read."""
        version = resource.get("meta", {}).get("versionId")
        path = f"{resource['resourceType']}/{resource['id']}"
        body = json.dumps(resource, ensure_ascii=False).encode()
        self._ask("PUT", path, content=body, headers={"if-match": f'W/"{version}"'} if version else {})

    def approvals(self) -> list[dict[str, Any]]:
        """Every Task by which careloom asks for a decision, whatever has become of it."""
        return [task for task in self._search("Task?_security=AIAST&_count=200") if is_ours(task)]

    def drafts(self, types: Iterable[str]) -> list[dict[str, Any]]:
        """Every resource of these types with the label of an AI's work, and all Provenances and Devices; no fences."""
        labelled = [one for kind in sorted(set(types)) for one in self._search(f"{kind}?_security=AIAST&_count=200")]
        found = [*labelled, *self._search("Provenance?_count=200"), *self._search("Device?_count=200")]
        return [one for one in found if not is_fence(one)]

    def _search(self, url: str) -> Iterator[dict[str, Any]]:
        following: str | None = url
        while following:
            page = self._ask("GET", following).json()
            yield from (entry["resource"] for entry in page.get("entry", []))
            following = next((link["url"] for link in page.get("link", []) if link["relation"] == "next"), None)

    def _ask(
        self,
        method: str,
        url: str,
        *,
        content: bytes | None = None,
        allowed: tuple[int, ...] = (),
        headers: Mapping[str, str] | None = None,
    ) -> httpx.Response:
        try:
            answer = self._http.request(method, url, content=content, headers=headers)
        except httpx.HTTPError as error:
            raise CareloomError(f"the hospital's FHIR server does not answer: {type(error).__name__}") from None
        if answer.is_error and answer.status_code not in allowed:
            raise CareloomError(
                f"the hospital's FHIR server answers {answer.status_code} to {method} {url.split('?')[0]}"
            )
        return answer


def doubles(drafts: Iterable[Mapping[str, Any]]) -> int:
    """How many of these drafts stand at the FHIR server more often than once, by their identity."""
    seen = Counter(identity for draft in drafts for identity in _identities(draft))
    return sum(count - 1 for count in seen.values())


def _identities(resource: Mapping[str, Any]) -> list[str]:
    """What write-back makes a draft unique by; `identifier` is a list in most types, one value in Composition."""
    identifiers = resource.get("identifier", [])
    listed = identifiers if isinstance(identifiers, list) else [identifiers]
    return [f"{resource['resourceType']} {one['value']}" for one in listed if one.get("system") == "urn:careloom:draft"]
