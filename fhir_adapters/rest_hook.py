"""Classic R4 rest-hook: `PUT <endpoint>/<Type>/<id>` with the bare resource, `DELETE` of it, or an empty POST.

Source: https://hl7.org/fhir/R4/subscription.html#2.46.7.1, and what HAPI FHIR and sekmet send (R4 does not say where
the resource goes). An empty POST says only that something changed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_adapters.errors import NotFhir
from fhir_adapters.notification import Intake
from fhir_adapters.references import literal
from fhir_adapters.resource_event import Sender, deleted, written
from fhir_adapters.resource_types import versions_of


def take(sender: Sender, resource: Mapping[str, Any], body: bytes, path_type: str, path_id: str | None) -> Intake:
    """The event of one resource sent to `<Type>/<id>` (or `<Type>`).

    Raises:
        NotFhir: the resource is not the one that the path names, or none of the sender's version.
    """
    check_type(sender, path_type)
    event = written(sender, resource, body)
    if event.resource_type != path_type:
        raise NotFhir(f"the path says {path_type} but the body is another type of resource")
    if path_id is not None and event.resource_id != path_id:
        raise NotFhir("the id in the path and the id in the body differ")
    return Intake(events=(event,))


def take_ping(sender: Sender, path_type: str | None) -> Intake:
    """The intake of an empty POST: search for what changed.

    Raises:
        NotFhir: the path names no type of the sender's version.
    """
    if path_type is not None:
        check_type(sender, path_type)
    return Intake(search=True, search_type=path_type)


def take_deletion(sender: Sender, path_type: str | None, path_id: str | None) -> Intake:
    """The event of `DELETE <Type>/<id>`.

    Raises:
        NotFhir: the path does not name a resource of the sender's version.
    """
    if path_type is None or path_id is None or literal(f"{path_type}/{path_id}") is None:
        raise NotFhir("a DELETE must name what was deleted as <Type>/<id>")
    check_type(sender, path_type)
    return Intake(events=(deleted(sender, path_type, path_id),))


def check_type(sender: Sender, path_type: str) -> None:
    """Refuse a type that the sender's FHIR version does not have.

    Raises:
        NotFhir: it does not.
    """
    if sender.version not in versions_of(path_type):
        raise NotFhir(f"the path names no resource type of FHIR {sender.version}, which this source is bound to")
