"""Bytes that Kafka has no more: had from a FHIR server of memory, held to the gateway's rules, sent once more."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fhir_adapters.errors import FhirNotFound, FhirRejected, FhirUnavailable
from fhir_adapters.event import ClinicalEvent
from fhir_adapters.fhir_answer import Reading
from pipelines.config import Config
from pipelines.kafka.envelope import Envelope
from pipelines.ledger import EventRow, Position
from pipelines.replay.restoring import NotRestorable, Restorer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ENCOUNTER = {
    "resourceType": "Encounter",
    "id": "e",
    "meta": {"versionId": "2"},
    "status": "finished",
    "class": {"code": "IMP"},
    "subject": {"reference": "Patient/p"},
}


class Server:
    """A FHIR server with one resource, current in one version; `history` says whether it keeps others."""

    def __init__(self, resource: dict[str, Any], *, history: Sequence[dict[str, Any]] = ()) -> None:
        self.resource = resource
        self.history = {version["meta"]["versionId"]: version for version in history}
        self.refusal: Exception = FhirNotFound("GET Encounter: 404", status=404)
        self.closed = False

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        if resource_id != self.resource["id"]:
            raise self.refusal
        return _reading(self.resource)

    async def vread(self, resource_type: str, resource_id: str, version: str) -> Reading:
        if version not in self.history:
            raise self.refusal
        return _reading(self.history[version])

    async def aclose(self) -> None:
        self.closed = True


class Broker:
    """A sink of memory."""

    connected = True
    generation = 1

    def __init__(self) -> None:
        self.produced: list[Envelope] = []

    async def connect(self) -> None:
        """Always connected."""

    async def produce(self, envelopes: Sequence[Envelope]) -> list[Position]:
        self.produced += envelopes
        return [Position("careloom.events", 3, 77)] * len(envelopes)

    async def close(self) -> None:
        """Nothing to close."""


def _reading(resource: dict[str, Any]) -> Reading:
    return Reading(resource, orjson.dumps(resource), resource["meta"]["versionId"])


def configured(**source: Any) -> Config:
    base = {"name": "ward", "fhir_version": "R4", "token": "t", "base_url": "http://ward.test/fhir"}
    return Config.model_validate(
        {
            "state_dir": ".",
            "patient_salt": "s",
            "sources": [{**base, **source}],
            "ledger": {"url": "postgresql://nobody@127.0.0.1:9/nothing"},
            "airflow": {"password": "p"},
            "model": {"name": "m", "version": "1"},
        }
    )


def lost(version: str | None = "2", **other: Any) -> EventRow:
    """The event whose bytes are gone."""
    parts = {"resource_id": "e", "source": "ward", **other}
    identity = ClinicalEvent(
        parts["source"], "R4", "Encounter", parts["resource_id"], version, None, None, b""
    ).identity
    return EventRow(identity, parts["source"], "R4", "Encounter", parts["resource_id"], version, None, "written", "k",
                    Position("t", 0, 0), NOW, NOW)  # fmt: skip


def restore(server: Server, event: EventRow, config: Config | None = None) -> tuple[Position, list[Envelope]]:
    broker = Broker()

    async def go() -> Position:
        restorer = Restorer(config or configured(), sink=broker, connect=lambda source: server)
        try:
            return await restorer.publish(await restorer.read(event))
        finally:
            await restorer.aclose()

    place = asyncio.run(go())
    assert server.closed
    return place, broker.produced


def test_the_very_version_is_read_and_sent_with_the_identity_that_it_had() -> None:
    newer = {**ENCOUNTER, "meta": {"versionId": "3"}}
    place, [envelope] = restore(Server(newer, history=[ENCOUNTER]), lost())
    assert place == Position("careloom.events", 3, 77)
    assert dict(envelope.headers)["ce_id"].decode() == lost().event_id
    assert envelope.value == orjson.dumps(ENCOUNTER)


@pytest.mark.parametrize("refusal", [FhirNotFound("404", status=404), FhirRejected("no vread", status=405)])
def test_a_server_without_history_gives_the_current_one_if_it_is_that(refusal: Exception) -> None:
    server = Server(ENCOUNTER)
    server.refusal = refusal
    _, [envelope] = restore(server, lost())
    assert dict(envelope.headers)["ce_id"].decode() == lost().event_id


@pytest.mark.parametrize(
    ("event", "why"),
    [
        (lost("1"), "this version no more"),
        (lost(resource_id="another"), "this version no more"),
        (lost(None), "gave it no id and version"),
        (lost(source="elsewhere"), "no source named"),
    ],
)
def test_what_cannot_be_had_again_says_why(event: EventRow, why: str) -> None:
    with pytest.raises(NotRestorable, match=why):
        restore(Server(ENCOUNTER), event)


def test_a_source_without_a_server_cannot_be_asked() -> None:
    with pytest.raises(NotRestorable, match="no server to be asked"):
        restore(Server(ENCOUNTER), lost(), configured(base_url=None))


def test_what_its_source_has_refused_is_refused_here_too() -> None:
    wrong = {**ENCOUNTER, "status": ["not", "a", "code"]}
    with pytest.raises(NotRestorable, match="not valid FHIR") as refused:
        restore(Server(wrong), lost(), configured(validation="reject"))
    assert "code" not in str(refused.value)


def test_a_server_that_does_not_answer_is_no_reason_to_give_an_event_up() -> None:
    server = Server(ENCOUNTER)
    server.refusal = FhirUnavailable("no answer")
    with pytest.raises(FhirUnavailable):
        restore(server, lost("9"))
