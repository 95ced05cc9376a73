"""A fence on real servers, sekmet and HAPI: a transaction that comes after it is refused as a whole."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fhir_adapters.drafts import DRAFT_SYSTEM, IDENTITY_TAG, build_transaction
from fhir_adapters.errors import FhirConflict, FhirRejected, FhirServerError
from fhir_adapters.fhir_client import FhirClient
from fhir_adapters.provenance import Author, Origin
from fhir_adapters.validate import problems
from fhir_adapters.write_fence import FENCE_TAG, Fenced, build_fence, build_probe, came_first

NEWER = f"{'f' * 64}:in_visit.note:1"
NOW = datetime(2026, 11, 28, tzinfo=UTC)


@dataclass(frozen=True)
class Draft:
    name: str
    resource: dict[str, Any]
    sources: tuple[str, ...] = ()


def identity(letter: str) -> str:
    return f"{letter * 64}:in_visit.note:1"


def transaction(who: str, *, flags: int = 2) -> dict[str, Any]:
    flag = {
        "resourceType": "Flag",
        "status": "active",
        "code": {"text": "fast pulse"},
        "subject": {"reference": "Patient/fenced"},
    }
    return build_transaction(
        [Draft(f"flag{number}", flag) for number in range(flags)],
        identity=who,
        author=Author("rules", "careloom", "1"),
        origin=Origin("in_visit.note", "1", None, "Patient/fenced/_history/1"),
        recorded=NOW,
        approval="please decide",
    ).bundle


def fence(who: str, kind: str = "Flag") -> dict[str, Any]:
    return build_fence(Fenced(who, "model", kind, "flag0"), overtaken_by=NEWER, recorded=NOW)


def probe(who: str) -> dict[str, Any]:
    return build_probe(Fenced(who, "model", "Flag", "flag0"), overtaken_by=NEWER, recorded=NOW)


async def drafts(client: FhirClient, who: str, *, flags: int = 2) -> int:
    found = 0
    for number in {0, 1, flags // 2, flags - 1}:
        tag = {"_tag": f"{DRAFT_SYSTEM}|{who}:flag{number}"}
        for reading in (await client.search("Flag", tag)).resources:
            found += all(tag["system"] != FENCE_TAG for tag in reading.resource["meta"]["tag"])
    tasks = (await client.search("Task", {"_tag": f"{DRAFT_SYSTEM}|{who}:approve"})).resources
    assert len(tasks) == (1 if found else 0)  # it is there with its drafts, and fenced off with them
    return found


@pytest.fixture(params=["sekmet", "hapi"])
def base_url(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue(f"{request.param}_server"))


def on(base_url: str, action: Callable[[FhirClient], Coroutine[Any, Any, None]]) -> None:
    async def run() -> None:
        async with FhirClient(base_url, timeout=120) as client:
            await client.update({"resourceType": "Patient", "id": "fenced"})
            await action(client)

    asyncio.run(run())


@pytest.mark.stack
def test_a_transaction_that_comes_after_its_fence_is_refused_whole_and_a_probe_shows_that_it_would_be(
    base_url: str,
) -> None:
    async def act(client: FhirClient) -> None:
        who = identity("a")
        assert not came_first(await client.transaction(fence(who)))
        for late in (probe(who), transaction(who), transaction(who, flags=1)):
            with pytest.raises(FhirConflict) as refused:
                await client.transaction(late)
            assert refused.value.status == 412
        assert await drafts(client, who) == 0
        tagged = (await client.search("Provenance", {"_tag": f"{IDENTITY_TAG}|{who}:model"})).resources
        assert len(tagged) == 2
        for reading in tagged:
            assert {"system": FENCE_TAG, "code": NEWER} in reading.resource["meta"]["tag"]

    on(base_url, act)


@pytest.mark.stack
def test_a_fence_says_that_the_transaction_had_come_first_and_holds_all_the_same(base_url: str) -> None:
    async def act(client: FhirClient) -> None:
        who = identity("b")
        await client.transaction(transaction(who))
        assert came_first(await client.transaction(fence(who)))
        assert await drafts(client, who) == 2
        with pytest.raises(FhirConflict):
            await client.transaction(transaction(who, flags=3))
        assert await drafts(client, who, flags=3) == 2
        assert came_first(await client.transaction(fence(who)))

    on(base_url, act)


@pytest.mark.stack
def test_no_transaction_that_is_being_taken_passes_by_a_fence_that_is_being_written(base_url: str) -> None:
    """A large one, and a fence at several moments of its way: either it is told to have come first, or it failed."""
    flags = 80

    async def act(client: FhirClient) -> None:
        began = time.monotonic()
        await client.transaction(transaction(identity("d"), flags=flags))
        takes = time.monotonic() - began
        for letter, share in zip("012345", (0.0, 0.2, 0.4, 0.6, 0.8, 1.1), strict=True):
            who, wait = identity(letter), share * takes
            late = asyncio.create_task(taken(client, transaction(who, flags=flags)))
            await asyncio.sleep(wait)
            first = await fenced(client, who)
            was_taken = await late
            assert await drafts(client, who, flags=flags) == (4 if was_taken else 0)
            assert was_taken == first

    on(base_url, act)


async def taken(client: FhirClient, bundle: dict[str, Any]) -> bool:
    try:
        await client.transaction(bundle)
    except FhirServerError:
        return False
    return True


async def fenced(client: FhirClient, who: str) -> bool:
    """Whether the other came first; a fence that got in somebody's way is sent again."""
    for _ in range(200):
        try:
            first = came_first(await client.transaction(fence(who)))
        except FhirConflict as conflict:
            assert conflict.status == 409
            await asyncio.sleep(0.05)
            continue
        with pytest.raises(FhirConflict):
            await client.transaction(probe(who))
        return first
    raise AssertionError("the fence was never taken")


#: What scenarios draft, here and probably elsewhere.
TYPES = (
    "CarePlan", "Communication", "CommunicationRequest", "Composition", "DetectedIssue", "DiagnosticReport",
    "DocumentReference", "Flag", "MedicationRequest", "Observation", "RiskAssessment", "ServiceRequest", "Task",
)  # fmt: skip


@pytest.mark.stack
def test_the_reference_validator_finds_no_error_in_a_fence(
    validator_errors: Callable[[dict[str, Any]], list[str]],
) -> None:
    for kind in TYPES:
        for entry in fence(identity("a"), kind)["entry"]:
            assert validator_errors(entry["resource"]) == []


@pytest.mark.parametrize("kind", TYPES)
def test_a_fence_is_of_no_patient_and_in_error(kind: str) -> None:
    for entry in fence(identity("a"), kind)["entry"]:
        resource = entry["resource"]
        assert b"Patient/" not in orjson.dumps(resource)
        assert resource.get("status", "entered-in-error") == "entered-in-error"
        assert problems(resource, "R4") == ()


def test_a_fence_in_place_of_what_is_no_resource_of_r4_is_refused() -> None:
    with pytest.raises(ValueError, match="Nonsense"):
        fence(identity("a"), "Nonsense")


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"entry": []},
        {"entry": [None, None, None]},
        {"entry": [{"response": None}, {}, {}]},
        {"entry": [{"response": {"status": "204"}}, {}, {}]},
    ],
)
def test_an_answer_that_does_not_tell_is_refused(answer: dict[str, Any]) -> None:
    with pytest.raises(FhirRejected):
        came_first(answer)
