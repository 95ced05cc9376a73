"""Client, drafts and subscriptions against real servers, sekmet and HAPI, with the reference validator as the judge."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pytest

from fhir_adapters.decision import Said, Verdict, decision_of
from fhir_adapters.drafts import Transaction, Written, build_transaction, parse_transaction_response
from fhir_adapters.errors import FhirConflict, FhirNotFound
from fhir_adapters.fhir_client import FhirClient
from fhir_adapters.provenance import Author, Origin
from fhir_adapters.subscribe import ensure_subscriptions
from pipelines.runner.recognition import written_before

pytestmark = pytest.mark.stack

ENDPOINT = "http://127.0.0.1:9/closed"

AIAST = ("http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "AIAST")


@pytest.fixture(params=["sekmet", "hapi"])
def base_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_server"))


@dataclass(frozen=True)
class Draft:
    name: str
    resource: dict[str, Any]
    sources: tuple[str, ...] = ()


SUBJECT = {"reference": "Patient/drafted"}
DRAFTS = (
    Draft(
        "note",
        {
            "resourceType": "Composition",
            "status": "preliminary",
            "type": {"text": "Admission note"},
            "subject": SUBJECT,
            "date": "2026-11-22",
            "author": [{"display": "careloom"}],
            "title": "Admission note",
            "section": [{"title": "Risk", "entry": [{"reference": "urn:careloom:draft:risk"}]}],
        },
        ("Patient/drafted",),
    ),
    Draft("risk", {"resourceType": "RiskAssessment", "status": "preliminary", "subject": SUBJECT}),
    Draft(
        "task",
        {
            "resourceType": "Task",
            "status": "requested",
            "intent": "proposal",
            "code": {"coding": [{"system": "http://hl7.org/fhir/CodeSystem/task-code", "code": "approve"}]},
            "focus": {"reference": "urn:careloom:draft:note"},
            "for": SUBJECT,
        },
    ),
)


def transaction(identity: str, *, stand_in: bool = False) -> Transaction:
    return build_transaction(
        DRAFTS,
        identity=identity,
        author=Author("model", "SmolLM2-135M-Instruct", "1", "备案-0001", stand_in=stand_in),
        origin=Origin("in_visit.admission_note", "1", "p1", "Patient/drafted/_history/1", ("allergy",)),
        recorded=datetime.now(UTC),
    )


def with_client(base_url: str, action: Callable[[FhirClient], Coroutine[Any, Any, Any]]) -> Any:
    async def run() -> Any:
        async with FhirClient(base_url) as client:
            return await action(client)

    return asyncio.run(run())


async def counts(client: FhirClient) -> dict[str, int]:
    kinds = ("Composition", "RiskAssessment", "Task", "Device", "Provenance")
    return {kind: len((await client.search(kind)).resources) for kind in kinds}


def test_read_search_update_and_their_conflicts(base_url: str) -> None:
    async def act(client: FhirClient) -> None:
        assert await client.ping() == "4.0.1"
        patient = {"resourceType": "Patient", "identifier": [{"system": "urn:t", "value": "1"}], "active": True}
        condition = "identifier=urn:t%7C1"
        first = await client.create(patient, if_none_exist=condition)
        again = await client.create(patient, if_none_exist=condition)
        assert (first.created, again.created, again.reference) == (True, False, first.reference)
        _, resource_id = first.reference.split("/")
        reading = await client.read("Patient", resource_id)
        assert reading.version == "1"
        changed = await client.update({**reading.resource, "active": False}, if_match=reading.version)
        assert changed.version == "2"
        with pytest.raises(FhirConflict):
            await client.update(reading.resource, if_match="1")
        assert (await client.vread("Patient", resource_id, "1")).resource["active"] is True
        with pytest.raises(FhirNotFound):
            await client.read("Patient", "not-there")
        for value in "abcde":
            await client.create({"resourceType": "Basic", "code": {"coding": [{"system": "urn:p", "code": value}]}})
        found = await client.search("Basic", {"code": "urn:p|", "_count": "2"})
        assert len(found.resources) == 5
        assert len({reading.resource["id"] for reading in found.resources}) == 5
        assert (await client.search("Basic", {"code": "urn:p|", "_count": "2"}, cap=3)).truncated
        await client.create(patient)
        with pytest.raises(FhirConflict):
            await client.create(patient, if_none_exist=condition)

    with_client(base_url, act)


def test_the_same_drafts_again_write_nothing_new(base_url: str) -> None:
    async def act(client: FhirClient) -> None:
        await client.update({"resourceType": "Patient", "id": "drafted"})
        sent = transaction("a" * 64)
        first = parse_transaction_response(sent, await client.transaction(sent.bundle))
        after_first = await counts(client)
        again = transaction("a" * 64)
        second = parse_transaction_response(again, await client.transaction(again.bundle))
        assert [written.created for written in first] == [True] * 3
        assert [written.created for written in second] == [False] * 3
        assert [written.reference for written in first] == [written.reference for written in second]
        assert await counts(client) == after_first
        task = await client.read(*first[2].reference.split("/"))
        assert task.resource["focus"]["reference"] == first[0].reference
        labelled = await client.search("Composition", {"_security": f"{AIAST[0]}|{AIAST[1]}"})
        assert first[0].reference in {f"Composition/{r.resource['id']}" for r in labelled.resources}

    with_client(base_url, act)


def test_a_person_s_decision_is_read_from_the_task_that_was_put_back_and_it_is_not_asked_for_again(
    base_url: str,
) -> None:
    identity = f"{'9' * 64}:in_visit.admission_note:1"

    async def act(client: FhirClient) -> None:
        await client.update({"resourceType": "Patient", "id": "drafted"})
        await client.update({"resourceType": "Practitioner", "id": "wang"})
        *drafts, task = await asked(client, identity)
        reading = await client.read(*task.reference.split("/"))
        assert decision_of(reading.resource) is None
        owner = {"reference": "Practitioner/wang"}
        output = [{"type": {"text": "edited"}, "valueReference": {"reference": drafts[0].reference}}]
        decided = {**reading.resource, "status": "completed", "owner": owner, "output": output}
        await client.update(decided, if_match=reading.version)
        kept = await client.read(*task.reference.split("/"))
        assert decision_of(kept.resource) == Said(identity, Verdict.EDITED, "Practitioner/wang", None)
        assert [written.created for written in await asked(client, identity)] == [False] * 3
        assert await written_before(client, identity) == tuple(draft.reference for draft in drafts)

    with_client(base_url, act)


async def asked(client: FhirClient, identity: str) -> tuple[Written, ...]:
    """Write the first two drafts, and the Task that asks for a decision on them."""
    sent = build_transaction(
        DRAFTS[:2],
        identity=identity,
        author=Author("model", "SmolLM2-135M-Instruct", "1"),
        origin=Origin("in_visit.admission_note", "1", "p1", "Patient/drafted/_history/1"),
        recorded=datetime.now(UTC),
        approval="Please accept, edit or reject this AI draft",
    )
    return parse_transaction_response(sent, await client.transaction(sent.bundle))


def test_concurrent_writers_of_the_same_drafts_leave_one(base_url: str) -> None:
    async def act(client: FhirClient) -> None:
        await client.update({"resourceType": "Patient", "id": "drafted"})
        before = await counts(client)
        writers = [client.transaction(transaction("c" * 64).bundle) for _ in range(8)]
        answers = await asyncio.gather(*writers, return_exceptions=True)
        assert any(isinstance(answer, dict) for answer in answers)
        assert all(isinstance(answer, (dict, FhirConflict)) for answer in answers)
        assert (await counts(client))["Composition"] == before["Composition"] + 1

    with_client(base_url, act)


@pytest.mark.parametrize("stand_in", [False, True])
def test_the_reference_validator_finds_no_error(
    validator_errors: Callable[[dict[str, Any]], list[str]], stand_in: bool
) -> None:
    for entry in transaction("a" * 64, stand_in=stand_in).bundle["entry"]:
        assert validator_errors(entry["resource"]) == []


@pytest.mark.parametrize("style", ["rest-hook", "backport"])
def test_subscriptions_are_created_once_kept_and_requested_again_when_off(base_url: str, style: Any) -> None:
    async def ensure(client: FhirClient, token: str = "t") -> list[str]:
        ensured = await ensure_subscriptions(
            client,
            source="ward",
            style=style,
            types=["Encounter", "QuestionnaireResponse"],
            endpoint=f"{ENDPOINT}/{style}",
            token=token,
        )
        return [one.action for one in ensured]

    async def act(client: FhirClient) -> None:
        assert await ensure(client) == ["created"] * 2
        there = (await client.search("Subscription")).resources
        ours = [r for r in there if r.resource["channel"]["endpoint"] == f"{ENDPOINT}/{style}"]
        assert len(ours) == 2
        while True:  # the server itself moves the status meanwhile
            latest = await client.read("Subscription", ours[0].resource["id"])
            try:
                await client.update({**latest.resource, "status": "off"}, if_match=latest.version)
                break
            except FhirConflict:
                continue
        assert "requested-again" in await ensure(client)
        assert len((await client.search("Subscription")).resources) == len(there)

    with_client(base_url, act)
