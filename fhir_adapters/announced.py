"""Joins what a notification announces with what it carries: events, what is still to be read, or "search for it".

Shared by the R4 backport, R4B and R5 notifications, which differ only in how the status is written down. Source:
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/payloads.html. A resource that no event has as its focus came
along as context: it did not change, so it is no event.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from fhir_adapters.bundle import Entry, bases_and_aliases
from fhir_adapters.errors import NotFhir
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.notification import Announced, Intake, Kind, Notification, Pointer
from fhir_adapters.references import literal, local
from fhir_adapters.resource_event import Sender, deleted, version_in_etag, written


def join(sender: Sender, notification: Notification, carried: Sequence[Entry]) -> Intake:
    """The intake of a notification and the entries behind its status.

    Raises:
        NotFhir: a carried resource is none of the sender's version.
    """
    if notification.kind not in (Kind.EVENT, Kind.QUERY_EVENT):
        return Intake(notification=notification)
    bases, aliases = bases_and_aliases(carried)
    sender = sender.knowing(*bases)
    if not any(announced.focus for announced in notification.announced):
        events = tuple(_event(sender, entry, aliases) for entry in carried if _changed(entry))
        return Intake(events=events, search=not events, notification=notification)
    by_target = {target.relative: entry for entry in carried if (target := entry.own or entry.target) is not None}
    events_by_identity: dict[str, ClinicalEvent] = {}
    to_read: dict[Pointer, None] = {}
    search = False
    for announced in notification.announced:
        focus = literal(announced.focus)
        entry = by_target.get(focus.relative) if focus else None
        if focus is None:
            search = True
        elif entry is not None and (entry.resource is not None or entry.method == "DELETE"):
            event = _event(sender, entry, aliases, patient=_only_patient(announced))
            events_by_identity[event.identity] = event
        else:
            to_read[Pointer(focus.type, focus.id, focus.version)] = None
    return Intake(
        events=tuple(events_by_identity.values()), to_read=tuple(to_read), search=search, notification=notification
    )


def own_reference(sender: Sender, reference: object, *, where: str) -> str:
    """ "Type/id" (with `/_history/<version>` where given) of a reference that must be the sender's own.

    Raises:
        NotFhir: no literal reference, or one at another server.
    """
    found = local(reference, sender.bases)
    if found is None:
        raise NotFhir(f"{where}: must be a literal reference at the server that the Subscription is at")
    return found.relative if found.version is None else f"{found.relative}/_history/{found.version}"


def event_number(value: object, *, where: str) -> int | None:
    """An event number: R4 and R4B write it as a string, R5 as an integer64, which JSON carries as a string too.

    Raises:
        NotFhir: neither.
    """
    if value is None:
        return None
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 18:
        return int(value)
    raise NotFhir(f"{where}: must be a whole number, not negative")


def _changed(entry: Entry) -> bool:
    if entry.method == "DELETE":
        return entry.target is not None
    return entry.resource is not None and entry.method not in ("GET", "HEAD")


def _event(sender: Sender, entry: Entry, aliases: Mapping[str, str], *, patient: str | None = None) -> ClinicalEvent:
    target = entry.target
    if entry.method == "DELETE" and target is not None:
        return deleted(
            sender,
            target.type,
            target.id,
            version_id=version_in_etag(entry.etag),
            last_updated=entry.last_modified,
            patient=patient,
        )
    return written(sender, entry.resource or {}, entry.body, where=f"{entry.where}.resource", aliases=aliases)


def _only_patient(announced: Announced) -> str | None:
    patients = {reference for reference in announced.context if reference.startswith("Patient/")}
    return patients.pop() if len(patients) == 1 else None
