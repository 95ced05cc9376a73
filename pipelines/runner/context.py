"""Fills a Case: the event's resource, its Patient, and what the scenario asks of the record, from the source's server.

What a search gives is not trusted to be the patient's own: a resource that belongs to anybody else, or to nobody that
can be told, is dropped and counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from fhir_adapters.errors import FhirNotFound
from fhir_adapters.fhir_answer import Found, Reading
from fhir_adapters.patient import patient_of
from fhir_adapters.references import literal, local
from pipelines.errors import ErrorClass, StepFailed
from pipelines.ledger.rows import EventRow
from plugins.scenario import Case, Locale, RecordQuery, Resource, Scenario

#: Searches at one server at the same time, over all patients of a batch.
IN_FLIGHT = 8

#: Types that describe the house, not a patient; of all others only the case's own patient's are let through.
_NOBODYS = frozenset(
    {
        "ActivityDefinition", "CodeSystem", "Endpoint", "HealthcareService", "Location", "Medication", "Organization",
        "OrganizationAffiliation", "PlanDefinition", "Practitioner", "PractitionerRole", "Questionnaire", "Substance",
        "ValueSet",
    }
)  # fmt: skip


class AsWritten(float):
    """A decimal that reckons as a float and prints as it was written: 7.20 stays 7.20 for whoever reads it.

    "The precision of the decimal value has significance" (FHIR R4 2.24.0.1, decimal).
    """

    _written: str

    def __new__(cls, written: str) -> AsWritten:
        """From the JSON literal."""
        value = super().__new__(cls, written)
        value._written = written
        return value

    def __repr__(self) -> str:
        return self._written

    __str__ = __repr__


class Records(Protocol):
    """The part of `FhirClient` that reading a record needs."""

    base_url: str

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        """See `FhirClient.read`."""
        ...

    async def search(
        self, resource_type: str, params: Mapping[str, str] | Sequence[tuple[str, str]] = (), *, cap: int = 1000
    ) -> Found:
        """See `FhirClient.search`."""
        ...


@dataclass(frozen=True, slots=True)
class Filled:
    """A case, and what was kept out of it.

    Attributes:
        case: for the scenario.
        dropped: resources that a search gave and that are not this patient's.
        asked: whether the server was asked at all; of what is remembered, or not wanted, it is not.
    """

    case: Case
    dropped: int
    asked: bool = True


_decoder = msgspec.json.Decoder(float_hook=AsWritten)


def parse(event: EventRow, payload: bytes) -> dict[str, Any]:
    """The event's resource.

    Raises:
        StepFailed: PAYLOAD_INVALID: the event is a deletion, or its bytes are not the resource that it says it is.
    """
    if event.change != "written":
        raise StepFailed(ErrorClass.PAYLOAD_INVALID, "the event is a deletion; there is no resource to work on")
    resource = parse_json(payload)
    if resource is None or resource.get("resourceType") != event.resource_type:
        raise StepFailed(ErrorClass.PAYLOAD_INVALID, f"the event's bytes are no {event.resource_type} in JSON")
    if event.resource_id is None or resource.get("id") != event.resource_id:
        raise StepFailed(
            ErrorClass.PAYLOAD_INVALID, "the resource has no id of its own; a draft could not name what it rests on"
        )
    return resource


class Context:
    """Reads what cases need from one server. It remembers patients until it is told to forget them.

    Args:
        records: the source's server.
        locale: language of prompts and drafts.
    """

    def __init__(self, records: Records, *, locale: Locale) -> None:
        self._records = records
        self._locale: Locale = locale
        self._slots = asyncio.Semaphore(IN_FLIGHT)
        self._patients: dict[str, Resource | None] = {}

    def forget(self) -> None:
        """Keep nothing of the patients that were read so far."""
        self._patients.clear()

    async def fill(self, scenario: Scenario[Any], event: EventRow, trigger: Resource) -> Filled:
        """The case of one event.

        Raises:
            FhirServerError: the server did not give all of it; half a record is never shown as the whole.
        """
        bases = (self._records.base_url,)
        patient = patient_of(trigger, bases=bases)
        names = {"{patient}": patient, "{encounter}": _encounter(trigger, bases)}
        before = event.last_updated or event.received_at
        known = patient is None or literal(patient) is None or patient in self._patients
        runnable = [(query, params) for query in scenario.record if (params := _params(query, names, before))]
        try:
            async with asyncio.TaskGroup() as group:
                reading = group.create_task(self._patient(patient))
                searches = [(q, group.create_task(self._search(q, params))) for q, params in runnable]
        except BaseExceptionGroup as several:
            raise several.exceptions[0] from None
        resources: dict[str, Sequence[Resource]] = {}
        dropped = 0
        for query, search in searches:
            found = [_read(one) for one in search.result().resources]
            resources[query.name] = [one for one in found if _belongs(one, patient, bases)][: query.cap]
            dropped += sum(not _belongs(one, patient, bases) for one in found)
        case = Case(
            trigger=trigger,
            patient=reading.result(),
            resources=resources,
            locale=self._locale,
            now=datetime.now(UTC),
            truncated=frozenset(query.name for query, search in searches if search.result().truncated),
        )
        return Filled(case, dropped, asked=bool(searches) or not known)

    async def _patient(self, reference: str | None) -> Resource | None:
        """The Patient, read once a batch; None where there is none."""
        found = literal(reference)
        if reference is None or found is None:
            return None
        if reference not in self._patients:
            try:
                async with self._slots:
                    self._patients[reference] = _read(await self._records.read("Patient", found.id))
            except FhirNotFound:
                self._patients[reference] = None
        return self._patients[reference]

    async def _search(self, query: RecordQuery, params: Sequence[tuple[str, str]]) -> Found:
        async with self._slots:
            return await self._records.search(query.resource_type, params, cap=query.cap)


def _params(
    query: RecordQuery, names: Mapping[str, str | None], before: datetime
) -> tuple[tuple[str, str], ...] | None:
    """The search's parameters; None where a placeholder has no value."""
    params: list[tuple[str, str]] = []
    for name, value in query.params.items():
        for placeholder, known in names.items():
            if placeholder in value and known is None:
                return None
            value = value.replace(placeholder, known or "")
        params.append((name, value))
    if query.window is not None and query.date_param is not None:
        since = (before - query.window).astimezone(UTC)
        params.append((query.date_param, f"ge{since.isoformat(timespec='seconds').replace('+00:00', 'Z')}"))
    params.append(("_sort", query.sort or "-_lastUpdated"))
    params.append(("_count", str(query.cap + 1)))  # one more than is kept: whether there is more is seen on one page
    return tuple(params)


def _encounter(trigger: Resource, bases: Sequence[str]) -> str | None:
    """ "Encounter/<id>" of the trigger: itself, or what its `encounter` or `context` names at this server."""
    if trigger.get("resourceType") == "Encounter":
        return f"Encounter/{trigger.get('id')}"
    context = trigger.get("context")
    inside = context.get("encounter") if isinstance(context, dict) else None
    for node in (trigger.get("encounter"), context, *(inside if isinstance(inside, list) else [inside])):
        found = local(node.get("reference"), bases) if isinstance(node, dict) else None
        if found is not None and found.type == "Encounter":
            return found.relative
    return None


def _belongs(resource: Resource, patient: str | None, bases: Sequence[str]) -> bool:
    if resource.get("resourceType") in _NOBODYS:
        return True
    return patient is not None and patient_of(resource, bases=bases) == patient


def _read(reading: Reading) -> dict[str, Any]:
    """The resource with its decimals as they were written."""
    return parse_json(reading.body) or reading.resource


def parse_json(body: bytes) -> dict[str, Any] | None:
    """The JSON object, with its decimals as they were written; None where the bytes are none."""
    try:
        parsed = _decoder.decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    return parsed if isinstance(parsed, dict) else None
