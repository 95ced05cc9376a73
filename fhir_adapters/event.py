"""ClinicalEvent: the one shape in which anything that a hospital system says enters careloom."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

FhirVersion = Literal["R4", "R4B", "R5"]
Change = Literal["written", "deleted"]


@dataclass(frozen=True, slots=True)
class ClinicalEvent:
    """One version of one resource at one source.

    Attributes:
        source: configured name of the sender.
        fhir_version: the FHIR version that this source speaks.
        resource_type: FHIR type, for example "Encounter".
        resource_id: logical id at the source; None where the sender gave none.
        version_id: `meta.versionId`, an opaque string; None where there is none.
        last_updated: `meta.lastUpdated` as received (FHIR instant); None where there is none.
        patient: "Patient/<id>" the resource belongs to; None where it belongs to no patient.
        body: the resource exactly as its bytes were received (JSON, UTF-8); b"" for a deletion.
        change: "written" or "deleted".
    """

    source: str
    fhir_version: FhirVersion
    resource_type: str
    resource_id: str | None
    version_id: str | None
    last_updated: str | None
    patient: str | None
    body: bytes
    change: Change = "written"

    @property
    def identity(self) -> str:
        """The event's one id: 64 hex digits, the same however often and by whatever way it is delivered.

        A resource with id and version is that version; without either, its bytes are all there is.
        """
        if self.resource_id is not None and self.version_id is not None:
            what = f"{self.resource_id}\x1f{self.version_id}\x1f{self.change}"
        else:
            what = f"{self.resource_id or ''}\x1fsha256:{hashlib.sha256(self.body).hexdigest()}\x1f{self.change}"
        return hashlib.sha256(f"{self.source}\x1f{self.resource_type}\x1f{what}".encode()).hexdigest()
