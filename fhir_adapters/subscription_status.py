"""SubscriptionStatus, the resource in which R4B and R5 say why a notification was sent.

Sources: https://hl7.org/fhir/R4B/subscriptionstatus.html and https://hl7.org/fhir/R5/subscriptionstatus.html; the
elements read here are the same in both.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from fhir_adapters.announced import event_number, own_reference
from fhir_adapters.errors import NotFhir
from fhir_adapters.notification import Announced, Kind, Notification
from fhir_adapters.references import literal
from fhir_adapters.resource_event import Sender


def read_status(sender: Sender, status: Mapping[str, Any], *, where: str) -> tuple[Sender, Notification]:
    """The notification that a SubscriptionStatus describes, and the sender, now known by its Subscription's base URL.

    Raises:
        NotFhir: `subscription` or `type` is missing or wrong, or an event is not what the standard asks for.
    """
    reference = reference_in(status.get("subscription"), where=f"{where}.subscription")
    sender = sender.knowing(base_of(reference))
    announced = tuple(
        _announced(sender, event, where=f"{where}.notificationEvent[{i}]")
        for i, event in enumerate(objects(status.get("notificationEvent"), where=f"{where}.notificationEvent"))
    )
    return sender, Notification(
        kind=kind_of(status.get("type"), where=f"{where}.type"),
        subscription=subscription_name(reference),
        topic=text(status.get("topic"), where=f"{where}.topic"),
        status=text(status.get("status"), where=f"{where}.status"),
        events_since_start=event_number(
            status.get("eventsSinceSubscriptionStart"), where=f"{where}.eventsSinceSubscriptionStart"
        ),
        announced=announced,
        errors=tuple(
            code for error in objects(status.get("error"), where=f"{where}.error") for code in error_codes(error)
        ),
    )


def _announced(sender: Sender, event: Mapping[str, Any], *, where: str) -> Announced:
    focus = event.get("focus")
    return Announced(
        number=event_number(event.get("eventNumber"), where=f"{where}.eventNumber"),
        timestamp=text(event.get("timestamp"), where=f"{where}.timestamp"),
        focus=None
        if focus is None
        else own_reference(sender, reference_in(focus, where=where), where=f"{where}.focus"),
        context=contexts(
            sender,
            (reference_in(node, where=where) for node in objects(event.get("additionalContext"), where=where)),
        ),
    )


def reference_in(node: object, *, where: str) -> str:
    """`Reference.reference` of a Reference.

    Raises:
        NotFhir: no Reference, or one without a literal reference.
    """
    value = node.get("reference") if isinstance(node, Mapping) else None
    if not isinstance(value, str) or not value:
        raise NotFhir(f"{where}: must be a Reference with a reference in it")
    return value


def contexts(sender: Sender, references: Any) -> tuple[str, ...]:
    """ "Type/id" of those references that are the sender's own; context at other servers is left aside."""
    from_here = (literal(reference) for reference in references)
    return tuple(
        found.relative
        for found in from_here
        if found is not None and (found.base is None or found.base in sender.bases)
    )


def base_of(reference: str) -> str | None:
    """The base URL of an absolute reference."""
    found = literal(reference)
    return found.base if found is not None else None


def subscription_name(reference: str) -> str:
    """ "Subscription/<id>" of a subscription's reference; the reference itself where it is no literal one."""
    found = literal(reference)
    return found.relative if found is not None else reference


def kind_of(code: object, *, where: str) -> Kind:
    """The kind of a notification.

    Raises:
        NotFhir: none that FHIR knows.
    """
    try:
        return Kind(code)  # type: ignore[arg-type]
    except ValueError:
        raise NotFhir(f"{where}: must be one of {', '.join(Kind)}") from None


def text(value: object, *, where: str) -> str | None:
    """A string, or None where there is none.

    Raises:
        NotFhir: something else.
    """
    if value is not None and not isinstance(value, str):
        raise NotFhir(f"{where}: must be a string")
    return value


def objects(value: object, *, where: str) -> list[Mapping[str, Any]]:
    """A list of objects; empty where there is none.

    Raises:
        NotFhir: something else.
    """
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise NotFhir(f"{where}: must be a list of objects")
    return value


def error_codes(concept: object) -> tuple[str, ...]:
    """The codes of a CodeableConcept that says what went wrong; "unspecified" where it has none."""
    codings = concept.get("coding") if isinstance(concept, Mapping) else None
    codes = tuple(
        coding["code"]
        for coding in (codings if isinstance(codings, list) else [])
        if isinstance(coding, dict) and isinstance(coding.get("code"), str)
    )
    return codes or ("unspecified",)
