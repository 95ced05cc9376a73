"""Subscriptions are written as both servers read them, and an existing one is kept, renewed or corrected."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from fhir_adapters.fhir_answer import Found, Reading, Saved
from fhir_adapters.subscribe import Ensured, Style, ensure_subscriptions


class FakeServer:
    """Keeps what it is sent, and gives new Subscriptions the status that it is told to."""

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}

    async def search(self, resource_type: str, params: Mapping[str, str] = {}, *, cap: int = 1000) -> Found:
        found = [r for r in self.resources.values() if r["resourceType"] == resource_type]
        return Found(tuple(Reading(r, b"", "1") for r in found[:cap]), truncated=False)

    async def create(self, resource: Mapping[str, Any], *, if_none_exist: str | None = None) -> Saved:
        for old in self.resources.values():
            if if_none_exist and old.get("identifier") == resource.get("identifier"):
                return Saved(f"{old['resourceType']}/{old['id']}", "1", created=False)
        new = {**resource, "id": str(len(self.resources)), "meta": {"versionId": "1"}}
        self.resources[new["id"]] = new
        return Saved(f"{new['resourceType']}/{new['id']}", "1", created=True)

    async def update(self, resource: Mapping[str, Any], *, if_match: str | None = None) -> Saved:
        assert if_match == "1"
        self.resources[resource["id"]] = {**resource, "meta": {"versionId": "1"}}
        return Saved(f"{resource['resourceType']}/{resource['id']}", "2", created=False)

    def kept(self, resource_type: str) -> list[dict[str, Any]]:
        return [r for r in self.resources.values() if r["resourceType"] == resource_type]


def ensure(server: FakeServer, style: Style = "rest-hook", **more: Any) -> tuple[Ensured, ...]:
    options: dict[str, Any] = {"types": ["Encounter"], "endpoint": "http://gw/hook", "token": "t", **more}
    return asyncio.run(ensure_subscriptions(server, source="ward", style=style, **options))


def test_a_classic_subscription_asks_for_every_resource_of_the_type() -> None:
    server = FakeServer()
    ensure(server)
    (subscription,) = server.kept("Subscription")
    assert subscription["criteria"] == "Encounter?"
    assert subscription["status"] == "requested"
    assert subscription["channel"] == {
        "type": "rest-hook",
        "endpoint": "http://gw/hook",
        "payload": "application/fhir+json",
        "header": ["Authorization: Bearer t"],
    }


def test_a_topic_has_its_trigger_where_sekmet_and_where_hapi_reads_it() -> None:
    server = FakeServer()
    ensure(server, "backport")
    (topic,) = server.kept("Basic")
    triggers = [e for e in topic["extension"] if e["url"].endswith("extension-SubscriptionTopic.resourceTrigger")]
    assert [e["url"].split("/")[4] for e in triggers] == ["4.3", "5.0"]
    for trigger in triggers:
        assert {"url": "resource", "valueUri": "Encounter"} in trigger["extension"]


def test_a_topic_based_subscription_has_the_filter_without_which_hapi_refuses_it() -> None:
    server = FakeServer()
    ensure(server, "backport", heartbeat=60)
    (subscription,) = server.kept("Subscription")
    assert subscription["criteria"] == "urn:careloom:topic:Encounter"
    assert subscription["_criteria"]["extension"][0]["valueString"] == "Encounter?"
    assert subscription["channel"]["_payload"]["extension"][0]["valueCode"] == "full-resource"
    assert subscription["channel"]["extension"][0]["valueUnsignedInt"] == 60


def test_a_topic_that_the_server_has_is_used_and_none_is_created() -> None:
    server = FakeServer()
    ensure(server, "backport", topics={"Encounter": "http://h/topic"})
    assert server.kept("Subscription")[0]["criteria"] == "http://h/topic"
    assert not server.kept("Basic")


@pytest.mark.parametrize("style", ["rest-hook", "backport"])
def test_running_again_changes_nothing(style: Style) -> None:
    server = FakeServer()
    first = ensure(server, style, types=["Encounter", "Task", "Encounter"])
    again = ensure(server, style, types=["Encounter", "Task"])
    assert [e.action for e in first] == ["created"] * 2
    assert [e.action for e in again] == ["kept"] * 2
    assert [e.reference for e in first] == [e.reference for e in again]


@pytest.mark.parametrize("status", ["error", "off", "entered-in-error"])
def test_one_that_no_longer_works_is_requested_again(status: str) -> None:
    server = FakeServer()
    ensure(server)
    server.kept("Subscription")[0].update(status=status, error="Delivery failed")
    (renewed,) = ensure(server)
    assert renewed.action == "requested-again"
    (subscription,) = server.kept("Subscription")
    assert subscription["status"] == "requested"
    assert "error" not in subscription


def test_a_new_token_is_written_into_the_old_subscription() -> None:
    server = FakeServer()
    ensure(server)
    assert [e.action for e in ensure(server, token="new")] == ["requested-again"]
    assert server.kept("Subscription")[0]["channel"]["header"] == ["Authorization: Bearer new"]


def test_a_subscription_to_somebody_elses_endpoint_is_left_alone() -> None:
    server = FakeServer()
    ensure(server, endpoint="http://other/hook")
    assert [e.action for e in ensure(server)] == ["created"]
    assert len(server.kept("Subscription")) == 2
