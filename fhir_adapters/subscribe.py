"""Asks a FHIR R4 server to tell us of changes: builds Subscriptions and keeps them there, however often it is run.

Two styles: "rest-hook", the classic R4 Subscription (criteria of a type; the bare resource is sent), and "backport",
topic-based with the full resource, the topics written as `Basic` with R5's cross-version extensions. Both were seen to
deliver from sekmet 0.1.1 (at once) and HAPI 8.8.0 (a new topic after one to two minutes: reconcile what came before).
Sources: https://hl7.org/fhir/R4/subscription.html,
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/StructureDefinition-backport-subscription.html and
https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/StructureDefinition-backport-subscription-topic.html.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol
from urllib.parse import quote

from fhir_adapters.errors import FhirConflict
from fhir_adapters.fhir_answer import Found, Saved

Style = Literal["rest-hook", "backport"]

TOPIC_SYSTEM = "urn:careloom:topic"

_IG = "http://hl7.org/fhir/uv/subscriptions-backport/StructureDefinition"
_TOPIC = "http://hl7.org/fhir/5.0/StructureDefinition/extension-SubscriptionTopic"
_WORKING = frozenset({"requested", "active"})


class Server(Protocol):
    """What is used of `fhir_client.FhirClient`."""

    async def search(self, resource_type: str, params: Mapping[str, str] = ..., *, cap: int = ...) -> Found:
        """See `FhirClient.search`."""

    async def create(self, resource: Mapping[str, Any], *, if_none_exist: str | None = ...) -> Saved:
        """See `FhirClient.create`."""

    async def update(self, resource: Mapping[str, Any], *, if_match: str | None = ...) -> Saved:
        """See `FhirClient.update`."""


@dataclass(frozen=True, slots=True)
class Ensured:
    """One Subscription that is there now.

    Attributes:
        reference: "Subscription/<id>".
        resource_type: that it tells of.
        status: when last seen: requested, active; an "error" or "off" one was requested again.
        action: "kept", "created", or "requested-again" (it was off or in error, or had another header or payload).
    """

    reference: str
    resource_type: str
    status: str
    action: Literal["kept", "created", "requested-again"]


async def ensure_subscriptions(
    client: Server,
    *,
    source: str,
    style: Style,
    types: Sequence[str],
    endpoint: str,
    token: str,
    topics: Mapping[str, str] | None = None,
    heartbeat: int | None = None,
) -> tuple[Ensured, ...]:
    """See to it that the server tells `endpoint` of every change of `types`.

    A Subscription is recognised by its criteria and endpoint. One that is off or in error is requested again.

    Args:
        client: of the server.
        source: configured name, for the Subscription's reason.
        style: see the module.
        types: FHIR types.
        endpoint: URL that notifications go to.
        token: sent by the server as `Authorization: Bearer`.
        topics: type -> canonical URL of a topic that the server has already; others are created ("backport" only).
        heartbeat: seconds after which the server says that it is still there ("backport" only).

    Raises:
        FhirServerError: the server did not do what was asked; what was done before stays.
    """
    there = await client.search("Subscription", {"_count": "200"}, cap=2000)
    ensured = []
    for resource_type in dict.fromkeys(types):
        wanted = _classic(resource_type, source, endpoint, token)
        if style == "backport":
            topic = (topics or {}).get(resource_type) or await _ensure_topic(client, resource_type)
            wanted = _backport(resource_type, topic, source, endpoint, token, heartbeat)
        ensured.append(await _ensure(client, wanted, resource_type, [reading.resource for reading in there.resources]))
    return tuple(ensured)


async def _ensure(
    client: Server, wanted: dict[str, Any], resource_type: str, there: Sequence[dict[str, Any]]
) -> Ensured:
    same = [old for old in there if _key(old) == _key(wanted)]
    same.sort(key=lambda old: old.get("status") not in _WORKING)
    if not same:
        saved = await client.create(wanted)
        return Ensured(saved.reference, resource_type, "requested", "created")
    old = same[0]
    reference = f"Subscription/{old['id']}"
    if old.get("status") in _WORKING and _channel(old) == _channel(wanted):
        return Ensured(reference, resource_type, str(old["status"]), "kept")
    renewed = {**wanted, "id": old["id"]}
    try:
        await client.update(renewed, if_match=(old.get("meta") or {}).get("versionId"))
    except FhirConflict:  # the server moved the status itself meanwhile; nobody else writes to our Subscription
        await client.update(renewed)
    return Ensured(reference, resource_type, "requested", "requested-again")


def _key(subscription: Mapping[str, Any]) -> tuple[object, object]:
    return subscription.get("criteria"), (subscription.get("channel") or {}).get("endpoint")


def _channel(subscription: Mapping[str, Any]) -> tuple[object, ...]:
    channel = subscription.get("channel") or {}
    return channel.get("type"), channel.get("payload"), channel.get("header"), channel.get("extension")


def _classic(resource_type: str, source: str, endpoint: str, token: str) -> dict[str, Any]:
    return {
        "resourceType": "Subscription",
        "status": "requested",
        "reason": f"careloom listens to {resource_type} of {source}",
        "criteria": f"{resource_type}?",
        "channel": {
            "type": "rest-hook",
            "endpoint": endpoint,
            "payload": "application/fhir+json",
            "header": [f"Authorization: Bearer {token}"],
        },
    }


def _backport(
    resource_type: str, topic: str, source: str, endpoint: str, token: str, heartbeat: int | None
) -> dict[str, Any]:
    subscription = _classic(resource_type, source, endpoint, token)
    subscription["meta"] = {"profile": [f"{_IG}/backport-subscription"]}
    subscription["criteria"] = topic
    # HAPI refuses a topic-based Subscription without a filter (HAPI-0011); this one lets everything of the type pass.
    everything = {"url": f"{_IG}/backport-filter-criteria", "valueString": f"{resource_type}?"}
    subscription["_criteria"] = {"extension": [everything]}
    channel = subscription["channel"]
    channel["_payload"] = {"extension": [{"url": f"{_IG}/backport-payload-content", "valueCode": "full-resource"}]}
    if heartbeat is not None:
        channel["extension"] = [{"url": f"{_IG}/backport-heartbeat-period", "valueUnsignedInt": heartbeat}]
    return subscription


async def _ensure_topic(client: Server, resource_type: str) -> str:
    """The canonical URL of our topic "every change of <type>", created at the server if it is not there."""
    url = f"urn:careloom:topic:{resource_type}"
    identifier = {"system": TOPIC_SYSTEM, "value": resource_type}
    trigger = [
        {"url": "description", "valueMarkdown": f"Every create and update of {resource_type}"},
        {"url": "resource", "valueUri": resource_type},  # the relative form: HAPI matches no other
        {"url": "supportedInteraction", "valueCode": "create"},
        {"url": "supportedInteraction", "valueCode": "update"},
    ]
    topic = {
        "resourceType": "Basic",
        "identifier": [identifier],
        "modifierExtension": [{"url": f"{_TOPIC}.status", "valueCode": "active"}],
        "extension": [
            {"url": f"{_TOPIC}.url", "valueUri": url},
            {"url": f"{_TOPIC}.version", "valueString": "1"},
            {"url": f"{_TOPIC}.title", "valueString": f"Every change of {resource_type}"},
            # the IG's own example has this one extension at 4.3, which HAPI reads; sekmet reads it at 5.0
            {"url": f"{_TOPIC}.resourceTrigger".replace("/5.0/", "/4.3/"), "extension": trigger},
            {"url": f"{_TOPIC}.resourceTrigger", "extension": trigger},
        ],
        "code": {"coding": [{"system": "http://hl7.org/fhir/fhir-types", "code": "SubscriptionTopic"}]},
    }
    await client.create(topic, if_none_exist=f"identifier={quote(f'{TOPIC_SYSTEM}|{resource_type}', safe='')}")
    return url
