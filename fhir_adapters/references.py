"""FHIR references as text: which are ours ("Type/id"), which point elsewhere (https://hl7.org/fhir/R4/references.html)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

#: FHIR datatype `id`; also what a versionId must look like. It goes into URLs, so nothing else may.
ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

_LITERAL = re.compile(
    r"(?:(?P<base>https?://[^\s?#]+)/)?(?P<type>[A-Z][A-Za-z]{1,63})/(?P<id>[A-Za-z0-9\-.]{1,64})"
    r"(?:/_history/(?P<version>[A-Za-z0-9\-.]{1,64}))?"
)


@dataclass(frozen=True, slots=True)
class Literal:
    """A literal reference, taken apart.

    Attributes:
        base: FHIR base URL without trailing slash; None when the reference is relative.
        type: FHIR type.
        id: logical id.
        version: version id, or None.
    """

    base: str | None
    type: str
    id: str
    version: str | None

    @property
    def relative(self) -> str:
        """ "Type/id"."""
        return f"{self.type}/{self.id}"


def literal(reference: object) -> Literal | None:
    """The parts of a relative or absolute RESTful reference; None for anything else (urn:, #contained, conditional)."""
    match = _LITERAL.fullmatch(reference) if isinstance(reference, str) else None
    if match is None:
        return None
    return Literal(match["base"], match["type"], match["id"], match["version"])


def name_of(resource: Mapping[str, Any]) -> Literal | None:
    """ "Type/id" of a resource; None where its type or id is missing or no FHIR name."""
    kind, own_id = resource.get("resourceType"), resource.get("id")
    return literal(f"{kind}/{own_id}") if isinstance(kind, str) and isinstance(own_id, str) else None


def same_base(base: str) -> str:
    """A base URL in the form in which two of them are compared."""
    return base.rstrip("/")


def local(reference: object, bases: Iterable[str]) -> Literal | None:
    """The parts of a reference that is relative, or absolute at one of our own `bases`; None for every other."""
    found = literal(reference)
    if found is None or found.base is None:
        return found
    return found if same_base(found.base) in bases else None
