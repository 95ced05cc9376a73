"""A dialogue over days: the Communications that belong together, by what each answers (`inResponseTo`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from plugins.fhir_text import listed, moment, source_of
from plugins.scenario import Resource

_NEVER = datetime.min.replace(tzinfo=UTC)


def thread(communication: Resource, among: Iterable[Resource]) -> Sequence[Resource]:
    """The dialogue that a Communication belongs to, oldest first, itself included.

    Two messages belong together when one answers the other, directly or over others; what they answer that is not
    `among` them still ties those that answer it together. Each message stands in it once, in circles too.

    Args:
        communication: where to begin; for example a case's trigger.
        among: the other Communications of the case (R4 Communication.inResponseTo); other types are passed over.
    """
    known = {source_of(one): one for one in (*among, communication) if one.get("resourceType") == "Communication"}
    tied: dict[str, set[str]] = {}
    for name, one in known.items():
        for answered in _answers(one):
            tied.setdefault(name, set()).add(answered)
            tied.setdefault(answered, set()).add(name)
    reached: set[str] = set()
    pending = [source_of(communication)]
    while pending:
        name = pending.pop()
        if name not in reached:
            reached.add(name)
            pending.extend(tied.get(name, ()))
    return sorted((known[name] for name in reached if name in known), key=_when)


def _answers(communication: Resource) -> list[str]:
    """ "Type/id" of what a message answers."""
    found = [one.get("reference") for one in listed(communication, "inResponseTo") if isinstance(one, Mapping)]
    return [reference.partition("/_history/")[0] for reference in found if isinstance(reference, str)]


def _when(communication: Mapping[str, Any]) -> tuple[datetime, str]:
    times = (moment(communication.get(name)) for name in ("sent", "received"))
    return next((time for time in times if time is not None), _NEVER), source_of(communication)
