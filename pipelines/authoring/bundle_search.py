"""FHIR searches over resources in memory, for what a `RecordQuery` asks; stands where a hospital's server would.

What it does not know it does not apply, and says so: a search that finds too much is seen, one that finds nothing
because of a parameter that was misunderstood would not be.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from fhir_adapters.errors import FhirNotFound
from fhir_adapters.fhir_answer import Found, Reading
from fhir_adapters.patient import patient_of
from plugins.fhir_text import listed, moment
from plugins.scenario import Resource

#: When something happened, the most telling element first (R4 search parameter `date` of the types that have one).
WHEN = (
    "effectiveDateTime", "effectivePeriod", "performedDateTime", "performedPeriod", "occurrenceDateTime", "authored",
    "authoredOn", "period", "start", "recordedDate", "onsetDateTime", "issued", "date", "sent", "created",
)  # fmt: skip
#: Search parameters that are not called as their element is.
_ELEMENTS = {
    "recorded-date": "recordedDate", "onset-date": "onsetDateTime", "authoredon": "authoredOn",
    "authored": "authored", "_lastUpdated": "meta.lastUpdated", "_id": "id", "vaccine-code": "vaccineCode",
    "identifier": "identifier", "occurrence": "occurrenceDateTime", "lifecycle-status": "lifecycleStatus",
}  # fmt: skip
_IGNORED = frozenset({"_sort", "_count", "patient"})
_PREFIX = re.compile(r"(ge|gt|le|lt|eq|sa|eb)?(\d{4}.*)")


class BundleRecords:
    """Reads and searches some resources as `pipelines.runner.context.Context` does a server's.

    Args:
        resources: each with an id.

    Attributes:
        not_applied: search parameters that were not understood, as "Type?parameter".
    """

    base_url = "http://file.invalid/fhir"

    def __init__(self, resources: Sequence[Resource]) -> None:
        self._resources = tuple(resources)
        self.not_applied: set[str] = set()

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        """One resource; the newest where several versions are there.

        Raises:
            FhirNotFound: there is none.
        """
        found = [r for r in self._of(resource_type) if r.get("id") == resource_id]
        if not found:
            raise FhirNotFound(f"the file holds no such {resource_type}")
        return _reading(found[-1])

    async def search(
        self, resource_type: str, params: Mapping[str, str] | Sequence[tuple[str, str]] = (), *, cap: int = 1000
    ) -> Found:
        """The resources that meet every parameter, sorted by `_sort`, at most `cap`."""
        asked = list(params.items()) if isinstance(params, Mapping) else list(params)
        found = [r for r in self._of(resource_type) if self._is_of(r, asked)]
        for name, value in asked:
            if name not in _IGNORED:
                found = self._met(resource_type, name, value, found)
        sort = dict(asked).get("_sort", "-date")
        found.sort(key=lambda r: _sort_key(r, sort.lstrip("-")), reverse=sort.startswith("-"))
        return Found(tuple(_reading(r) for r in found[:cap]), len(found) > cap)

    def _of(self, resource_type: str) -> Iterator[Resource]:
        """One of each id: the last version."""
        yield from {str(r.get("id")): r for r in self._resources if r.get("resourceType") == resource_type}.values()

    def _is_of(self, resource: Resource, asked: Sequence[tuple[str, str]]) -> bool:
        wanted = dict(asked).get("patient")
        return wanted is None or patient_of(resource, bases=(self.base_url,)) == wanted

    def _met(self, kind: str, name: str, value: str, found: Sequence[Resource]) -> list[Resource]:
        dated = _PREFIX.fullmatch(value)
        if dated and (name == "date" or name in _ELEMENTS or name.endswith("date")):
            return [r for r in found if _in_time(r, name, dated[1] or "eq", moment(dated[2]))]
        element = _element(name)
        if not any(_values(r, element) for r in self._of(kind)):
            if any(True for _ in self._of(kind)):
                self.not_applied.add(f"{kind}?{name}")
            return list(found)
        wanted = {part.rpartition("|")[2] or part for part in value.split(",")}
        return [r for r in found if wanted & _values(r, element)]


def when(resource: Resource) -> datetime | None:
    """When a resource's content happened, as far as its own elements say; None where they do not."""
    for name in WHEN:
        value = resource.get(name)
        if isinstance(value, Mapping):
            value = value.get("end") or value.get("start")
        if (at := moment(value)) is not None:
            return at
    return moment((resource.get("meta") or {}).get("lastUpdated"))


def _reading(resource: Resource) -> Reading:
    return Reading(dict(resource), json.dumps(resource, ensure_ascii=False).encode(), None)


def _element(name: str) -> str:
    return _ELEMENTS.get(name) or re.sub("-(.)", lambda match: match[1].upper(), name)


def _in_time(resource: Resource, name: str, prefix: str, bound: datetime | None) -> bool:
    at = when(resource) if name == "date" else moment(next(iter(_values(resource, _element(name))), None))
    if at is None or bound is None:
        return False
    return {
        "ge": at >= bound, "gt": at > bound, "sa": at > bound,
        "le": at <= bound, "lt": at < bound, "eb": at < bound, "eq": at == bound,
    }[prefix]  # fmt: skip


def _sort_key(resource: Resource, name: str) -> str:
    at = when(resource) if name in ("date", "_lastUpdated") else None
    return at.isoformat() if at else next(iter(sorted(_values(resource, _element(name)))), "")


def _values(node: Any, path: str) -> set[str]:
    """Every code, reference or plain text at an element."""
    name, _, rest = path.partition(".")
    found: set[str] = set()
    for value in listed(node, name) if isinstance(node, Mapping) else ():
        if rest:
            found |= _values(value, rest)
        elif isinstance(value, Mapping):
            found |= {str(value[key]) for key in ("code", "reference", "value") if key in value}
            found |= {str(c["code"]) for c in listed(value, "coding") if isinstance(c, Mapping) and "code" in c}
        else:
            found.add(str(value).lower() if isinstance(value, bool) else str(value))
    return found
