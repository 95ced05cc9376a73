"""The one way in: recognises what a hospital system sent and hands on events (the gateway calls only this).

    DELETE <Type>/<id>                                         rest_hook            (deletion)
    empty POST                                                 rest_hook            (ping: search)
    PUT <Type>/<id>, POST <Type>                               rest_hook            (bare resource)
    Bundle type subscription-notification                      subscription_r5      R5
    Bundle type history, first entry SubscriptionStatus        subscription_r4b     R4B
    Bundle type history, first entry Parameters (status)       subscription_r4_backport  R4
    bare SubscriptionStatus, bare status Parameters            a notification that carries nothing but its status
    any other Bundle, any other resource                       plain

A source is bound to one FHIR version; what belongs to another is refused, the refusal names both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fhir_adapters import (
    fhir_xml,
    plain,
    rest_hook,
    strict_json,
    subscription_r4_backport,
    subscription_r4b,
    subscription_r5,
    wire,
)
from fhir_adapters.announced import join
from fhir_adapters.bundle import Entry, entries
from fhir_adapters.errors import NotFhir
from fhir_adapters.event import FhirVersion
from fhir_adapters.notification import Intake
from fhir_adapters.resource_event import Sender
from fhir_adapters.subscription_status import read_status
from fhir_adapters.version_check import require_version

_STANDARDS: dict[str, Callable[[Sender, Sequence[Entry]], Intake]] = {
    subscription_r4_backport.VERSION: subscription_r4_backport.take,
    subscription_r4b.VERSION: subscription_r4b.take,
    subscription_r5.VERSION: subscription_r5.take,
}


def take(
    source: str,
    version: FhirVersion,
    method: str,
    path_type: str | None,
    path_id: str | None,
    content_type: str | None,
    body: bytes,
    limits: wire.Limits | None = None,
    *,
    content_encoding: str | None = None,
    base_url: str | None = None,
) -> Intake:
    """What one HTTP request of a source holds.

    Args:
        source: configured name of the sender.
        version: the FHIR version that it is bound to.
        method: POST, PUT or DELETE.
        path_type: the FHIR type in the path, or None.
        path_id: the id in the path, or None.
        content_type: header, or None.
        body: as received.
        limits: of size and depth; the defaults of `wire.Limits` when None.
        content_encoding: header, or None.
        base_url: the source's own FHIR base; absolute references below it are its own.

    Raises:
        Refused: any of its subclasses; the message echoes nothing of the body.
    """
    limits = limits or wire.Limits()
    sender = Sender(source, version).knowing(base_url)
    if method == "DELETE":
        return rest_hook.take_deletion(sender, path_type, path_id)
    if method not in ("POST", "PUT"):
        raise NotFhir("only POST, PUT and DELETE carry events")
    plain_body = wire.decompress(body, content_encoding, limit=limits.max_body_bytes)
    if not plain_body:
        if method == "POST" and path_id is None:
            return rest_hook.take_ping(sender, path_type)
        raise NotFhir("the body is empty; a resource was expected")
    if wire.format_of(content_type, version) == "xml":
        plain_body = fhir_xml.to_json(plain_body, version)
    resource = strict_json.parse(plain_body, max_depth=limits.max_depth)
    if path_type is not None:
        return rest_hook.take(sender, resource, plain_body, path_type, path_id)
    return _recognise(sender, resource, plain_body)


def _recognise(sender: Sender, resource: Mapping[str, Any], body: bytes) -> Intake:
    if resource.get("resourceType") == "Bundle":
        found = entries(resource, body)
        standard = _standard_of(resource, found)
        if standard is None:
            return plain.take_bundle(sender, resource, found)
        if standard != sender.version:
            raise NotFhir(
                f"this is a notification of FHIR {standard}, but this source is bound to {sender.version}; "
                "bind the source to the version that it speaks"
            )
        return _STANDARDS[standard](sender, found)
    if subscription_r4_backport.is_status(resource):
        if sender.version != "R4":
            raise NotFhir(f"this is a subscription status of FHIR R4, but this source is bound to {sender.version}")
        return join(*subscription_r4_backport.read_parameters(sender, resource, where="Parameters"), ())
    if resource.get("resourceType") == "SubscriptionStatus":
        require_version(resource, sender.version, where="the resource")
        return join(*read_status(sender, resource, where="SubscriptionStatus"), ())
    return plain.take_resource(sender, resource, body)


def _standard_of(bundle: Mapping[str, Any], found: tuple[Entry, ...]) -> str | None:
    if bundle.get("type") == subscription_r5.BUNDLE_TYPE:
        return subscription_r5.VERSION
    first = found[0].resource if found else None
    if bundle.get("type") != "history" or first is None:
        return None
    if first.get("resourceType") == "SubscriptionStatus":
        return subscription_r4b.VERSION
    return subscription_r4_backport.VERSION if subscription_r4_backport.is_status(first) else None
