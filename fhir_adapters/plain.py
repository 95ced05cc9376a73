"""A plain POST: one resource, or a Bundle of resources of any type but a message.

Source of the entries' meaning: https://hl7.org/fhir/R4/bundle.html. A Bundle is taken whole or refused whole.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_adapters.bundle import Entry, bases_and_aliases
from fhir_adapters.errors import NotFhir
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.notification import Intake, Pointer
from fhir_adapters.references import local
from fhir_adapters.resource_event import NO_RECORD, Sender, deleted, version_in_etag, written
from fhir_adapters.version_check import require_version

#: Bundle types whose entries are resources, or requests about them.
_TAKEN = frozenset(
    {
        "batch",
        "batch-response",
        "collection",
        "document",
        "history",
        "searchset",
        "transaction",
        "transaction-response",
    }
)


def take_resource(sender: Sender, resource: Mapping[str, Any], body: bytes) -> Intake:
    """The event of one resource.

    Raises:
        NotFhir: not a resource of the sender's version, or no part of a record.
    """
    return Intake(events=(written(sender, resource, body),))


def take_bundle(sender: Sender, bundle: Mapping[str, Any], entries: Sequence[Entry]) -> Intake:
    """The events of a Bundle's entries, oldest first (a history Bundle has its newest first).

    Raises:
        NotFhir: no known Bundle type, a message, or an entry that is none of the sender's version.
    """
    kind = bundle.get("type")
    if kind == "message":
        raise NotFhir("Bundle.type: FHIR messages are not taken here; send the resources in a collection")
    if not isinstance(kind, str) or kind not in _TAKEN:
        raise NotFhir(f"Bundle.type: must be one of {', '.join(sorted(_TAKEN))}")
    bases, aliases = bases_and_aliases(entries)
    sender = sender.knowing(*bases)
    events: dict[str, ClinicalEvent] = {}
    to_read: dict[Pointer, None] = {}
    search = False
    for entry in reversed(entries) if kind == "history" else entries:
        found = _take(sender, entry, aliases, answers=kind.endswith("-response"))
        if isinstance(found, ClinicalEvent):
            events[found.identity] = found
        elif isinstance(found, Pointer):
            to_read[found] = None
        search = search or found is _SOMETHING
    return Intake(events=tuple(events.values()), to_read=tuple(to_read), search=search)


_SOMETHING = object()
"""An entry changed something without saying what (a conditional delete or patch)."""


def _take(sender: Sender, entry: Entry, aliases: Mapping[str, str], *, answers: bool) -> object:
    if entry.method == "DELETE":
        return _deletion(sender, entry)
    if entry.method == "PATCH":
        target = local(entry.url, sender.bases)
        return Pointer(target.type, target.id) if target else _SOMETHING
    if entry.resource is None:
        if answers or entry.method in ("GET", "HEAD"):
            return None
        return _unsent(sender, entry)
    named = entry.resource.get("resourceType")
    if isinstance(named, str) and named in NO_RECORD:
        require_version(entry.resource, sender.version, where=f"{entry.where}.resource")
        return None
    return written(sender, entry.resource, entry.body, where=f"{entry.where}.resource", aliases=aliases)


def _deletion(sender: Sender, entry: Entry) -> object:
    target = local(entry.url, sender.bases)
    if target is None:
        return _SOMETHING
    return deleted(
        sender,
        target.type,
        target.id,
        version_id=version_in_etag(entry.etag),
        last_updated=entry.last_modified,
    )


def _unsent(sender: Sender, entry: Entry) -> Pointer:
    target = local(entry.url, sender.bases) or local(entry.full_url, sender.bases)
    if target is None:
        raise NotFhir(f"{entry.where}: has no resource and does not say which one it is about")
    return Pointer(target.type, target.id, version_in_etag(entry.etag))
