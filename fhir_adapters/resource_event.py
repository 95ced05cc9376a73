"""One resource, or the word that it is gone, as a ClinicalEvent."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fhir_adapters.errors import NotFhir
from fhir_adapters.event import ClinicalEvent, FhirVersion
from fhir_adapters.patient import patient_of
from fhir_adapters.references import ID, same_base
from fhir_adapters.version_check import require_version

#: Types that carry a message, not a record: they are no events.
NO_RECORD = frozenset({"OperationOutcome", "Parameters", "SubscriptionStatus"})

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_ETAG = re.compile(r'(?:W/)?"?([A-Za-z0-9\-.]{1,64})"?')


@dataclass(frozen=True, slots=True)
class Sender:
    """Who sent what is being taken.

    Attributes:
        name: the configured source.
        version: the FHIR version it is bound to.
        bases: its own base URLs without trailing slash; an absolute reference below one of them is its own.
    """

    name: str
    version: FhirVersion
    bases: frozenset[str] = frozenset()

    def knowing(self, *bases: str | None) -> Sender:
        """The same sender, known by further base URLs."""
        return Sender(self.name, self.version, self.bases | {same_base(base) for base in bases if base})


def written(
    sender: Sender,
    resource: Mapping[str, Any],
    body: bytes,
    *,
    where: str = "the resource",
    aliases: Mapping[str, str] | None = None,
) -> ClinicalEvent:
    """The event that `resource` was written.

    Args:
        resource: `body` parsed.
        body: the bytes that came in; they are the record.
        where: how a refusal names the place.
        aliases: fullUrl -> "Type/id" of the Bundle around it.

    Raises:
        NotFhir: not a resource of the sender's version, or its id or versionId is not a FHIR id.
    """
    require_version(resource, sender.version, where=where)
    kind = str(resource["resourceType"])
    if kind in NO_RECORD:
        raise NotFhir(f"{where}: {kind} is no part of a record; send the resource that it is about")
    meta = resource.get("meta")
    meta = meta if isinstance(meta, dict) else {}
    last_updated = meta.get("lastUpdated")
    return ClinicalEvent(
        source=sender.name,
        fhir_version=sender.version,
        resource_type=kind,
        resource_id=_id(resource.get("id"), f"{where}: id"),
        version_id=_id(meta.get("versionId"), f"{where}: meta.versionId"),
        last_updated=last_updated if isinstance(last_updated, str) and _INSTANT.fullmatch(last_updated) else None,
        patient=patient_of(resource, bases=sender.bases, aliases=aliases),
        body=body,
    )


def deleted(
    sender: Sender,
    resource_type: str,
    resource_id: str,
    *,
    version_id: str | None = None,
    last_updated: str | None = None,
    patient: str | None = None,
) -> ClinicalEvent:
    """The event that a resource was deleted; `patient` where the sender said whose it was."""
    if resource_type == "Patient":
        patient = f"Patient/{resource_id}"
    return ClinicalEvent(
        source=sender.name,
        fhir_version=sender.version,
        resource_type=resource_type,
        resource_id=resource_id,
        version_id=version_id,
        last_updated=last_updated,
        patient=patient,
        body=b"",
        change="deleted",
    )


def version_in_etag(etag: object) -> str | None:
    """The version id in an ETag; servers write `W/"3"`, `"3"` and (HAPI in a Bundle) `3`."""
    match = _ETAG.fullmatch(etag) if isinstance(etag, str) else None
    return match[1] if match else None


def _id(value: object, where: str) -> str | None:
    if value is None:
        return None
    if isinstance(value, str) and ID.fullmatch(value):
        return value
    raise NotFhir(f"{where}: must be a FHIR id (1 to 64 letters, digits, '-' and '.')")
