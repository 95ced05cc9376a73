"""R4 topic-based notification (Subscriptions Backport): a history Bundle whose first entry is a Parameters resource.

Source: https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/StructureDefinition-backport-subscription-status-r4.html.
Seen in the wild and taken: no meta.profile (sekmet), camelCase names (older backport servers), a date as an event's
timestamp (HAPI).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fhir_adapters.announced import event_number, join, own_reference
from fhir_adapters.bundle import Entry
from fhir_adapters.errors import NotFhir
from fhir_adapters.notification import Announced, Intake, Notification
from fhir_adapters.resource_event import Sender
from fhir_adapters.subscription_status import (
    base_of,
    contexts,
    error_codes,
    kind_of,
    objects,
    reference_in,
    subscription_name,
)

VERSION = "R4"
BUNDLE_TYPE = "history"

_PROFILE = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition/backport-subscription-status-r4"


def is_status(resource: Mapping[str, Any]) -> bool:
    """Whether a resource is the backport's status: it says so, or names a subscription and a type."""
    if resource.get("resourceType") != "Parameters":
        return False
    meta = resource.get("meta")
    profiles = meta.get("profile") if isinstance(meta, dict) else None
    if isinstance(profiles, list) and any(str(profile).partition("|")[0] == _PROFILE for profile in profiles):
        return True
    parameters = resource.get("parameter")
    if not isinstance(parameters, list):
        return False
    names = [parameter.get("name") for parameter in parameters if isinstance(parameter, dict)]
    return "subscription" in names and "type" in names


def take(sender: Sender, carried: Sequence[Entry]) -> Intake:
    """The intake of an R4 backport notification.

    Raises:
        NotFhir: not what the standard asks for.
    """
    first = carried[0]
    sender, notification = read_parameters(sender, first.resource or {}, where=f"{first.where}.resource")
    return join(sender, notification, carried[1:])


def read_parameters(sender: Sender, resource: Mapping[str, Any], *, where: str) -> tuple[Sender, Notification]:
    """The notification that a status Parameters describes, and the sender, now known by its Subscription's base URL.

    Raises:
        NotFhir: `subscription` or `type` is missing or wrong, or an event is not what the profile asks for.
    """
    parameters = objects(resource.get("parameter"), where=f"{where}.parameter")
    reference = reference_in(_value(parameters, "subscription"), where=f"{where}: parameter 'subscription'")
    sender = sender.knowing(base_of(reference))
    events = [p for p in parameters if _named(p, "notification-event")]
    return sender, Notification(
        kind=kind_of(_value(parameters, "type"), where=f"{where}: parameter 'type'"),
        subscription=subscription_name(reference),
        topic=_text(parameters, "topic", where),
        status=_text(parameters, "status", where),
        events_since_start=event_number(
            _value(parameters, "events-since-subscription-start"),
            where=f"{where}: parameter 'events-since-subscription-start'",
        ),
        announced=tuple(
            _announced(sender, objects(event.get("part"), where=f"{where}: notification-event {i}"), where)
            for i, event in enumerate(events)
        ),
        errors=tuple(
            code for p in parameters if _named(p, "error") for code in error_codes(p.get("valueCodeableConcept"))
        ),
    )


def _announced(sender: Sender, parts: list[Mapping[str, Any]], where: str) -> Announced:
    focus = _value(parts, "focus")
    at_focus = f"{where}: part 'focus'"
    return Announced(
        number=event_number(_value(parts, "event-number"), where=f"{where}: part 'event-number'"),
        timestamp=_text(parts, "timestamp", where),
        focus=None if focus is None else own_reference(sender, reference_in(focus, where=at_focus), where=at_focus),
        context=contexts(
            sender,
            (
                reference_in(_any_value(part), where=f"{where}: part 'additional-context'")
                for part in parts
                if _named(part, "additional-context")
            ),
        ),
    )


def _named(parameter: Mapping[str, Any], name: str) -> bool:
    first, *rest = name.split("-")
    return parameter.get("name") in (name, first + "".join(word.capitalize() for word in rest))


def _any_value(parameter: Mapping[str, Any]) -> object:
    return next((value for key, value in parameter.items() if key.startswith("value")), None)


def _value(parameters: Sequence[Mapping[str, Any]], name: str) -> object:
    found = [parameter for parameter in parameters if _named(parameter, name)]
    if len(found) > 1:
        raise NotFhir(f"the subscription status holds {name!r} more than once")
    return _any_value(found[0]) if found else None


def _text(parameters: Sequence[Mapping[str, Any]], name: str, where: str) -> str | None:
    value = _value(parameters, name)
    if value is not None and not isinstance(value, str):
        raise NotFhir(f"{where}: parameter {name!r} must be a string")
    return value
