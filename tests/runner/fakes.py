"""What a run stands between: a FHIR server, a model and the events' bytes, small and told what to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import orjson

from fhir_adapters.drafts import DRAFT_SYSTEM, IDENTITY_TAG
from fhir_adapters.errors import FhirConflict, FhirNotFound, FhirServerError, FhirUnavailable
from fhir_adapters.fhir_answer import Found, Reading
from pipelines.errors import PayloadGone
from pipelines.ledger import EventRow
from plugins.model_backend import ChatAnswer, ChatRequest

BASE = "http://hospital.test/fhir"


class FakeFhir:
    """Reads, searches by patient, and conditional creates in transactions; each can be told to fail."""

    base_url = BASE

    def __init__(self) -> None:
        self.resources: dict[str, dict[str, Any]] = {}
        self.conditions: dict[str, list[str]] = {}
        self.searches: list[tuple[str, dict[str, str]]] = []
        self.reads: list[str] = []
        self.transactions: list[Mapping[str, Any]] = []
        self.found: dict[str, list[dict[str, Any]]] = {}
        self.truncated: set[str] = set()
        self.failures: list[FhirServerError] = []
        self.refusals: list[FhirServerError] = []  # of transactions alone
        self.lose_answer = False
        self.lenient = False
        self.before_transaction: Callable[[], None] = lambda: None

    def put(self, resource: dict[str, Any]) -> None:
        self.resources[f"{resource['resourceType']}/{resource['id']}"] = resource

    def written(self, kind: str) -> list[dict[str, Any]]:
        """What careloom wrote of one type."""
        return [r for reference, r in self.resources.items() if reference.startswith(f"{kind}/new-")]

    async def read(self, resource_type: str, resource_id: str) -> Reading:
        self._fail()
        reference = f"{resource_type}/{resource_id}"
        self.reads.append(reference)
        if reference not in self.resources:
            raise FhirNotFound(f"GET {resource_type}: 404", status=404)
        return _reading(self.resources[reference])

    async def search(self, resource_type: str, params: Any = (), *, cap: int = 1000) -> Found:
        self._fail()
        self.searches.append((resource_type, dict(params)))
        found = self.found.get(resource_type, [])
        return Found(tuple(_reading(r) for r in found[:cap]), len(found) > cap)

    async def transaction(self, bundle: Mapping[str, Any]) -> dict[str, Any]:
        self.before_transaction()
        self._fail()
        if self.refusals:
            raise self.refusals.pop(0)
        self.transactions.append(bundle)
        places: dict[str, str] = {}
        answers = []
        conditions = [unquote(entry["request"].get("ifNoneExist", "")) for entry in bundle["entry"]]
        if not self.lenient and any(len(self.conditions.get(condition, ())) > 1 for condition in conditions):
            raise FhirConflict("POST Bundle: 412 (multiple-matches)", status=412)
        for entry, condition in zip(bundle["entry"], conditions, strict=True):
            kind = entry["resource"]["resourceType"]
            there = self.conditions.get(condition, [])
            known = bool(there)
            reference = there[0] if there else f"{kind}/new-{len(self.resources)}"
            if not known:
                for tag in _tags(entry["resource"]) or [condition]:
                    self.conditions.setdefault(tag, []).append(reference)
            places[entry["fullUrl"]] = reference
            answers.append(
                {"response": {"status": "200 OK" if known else "201 Created", "location": f"{reference}/_history/1"}}
            )
            if not known:
                self.resources[reference] = entry["resource"]
        for reference in places.values():
            self.resources[reference] = _resolved(self.resources[reference], places)
        if self.lose_answer:
            self.lose_answer = False
            raise FhirUnavailable("POST Bundle: no answer (ReadTimeout)")
        return {"resourceType": "Bundle", "type": "transaction-response", "entry": answers}

    async def aclose(self) -> None:
        pass

    def _fail(self) -> None:
        if self.failures:
            raise self.failures.pop(0)


def _tags(resource: dict[str, Any]) -> list[str]:
    """The conditions that a resource satisfies, of those that careloom asks."""
    tags = [f"_tag={tag['system']}|{tag['code']}" for tag in resource.get("meta", {}).get("tag", ())]
    return [tag for tag in tags if tag.startswith((f"_tag={DRAFT_SYSTEM}|", f"_tag={IDENTITY_TAG}|"))]


def _reading(resource: dict[str, Any]) -> Reading:
    return Reading(resource, orjson.dumps(resource), "1")


def _resolved(resource: dict[str, Any], places: Mapping[str, str]) -> dict[str, Any]:
    whole = json.dumps(resource)
    for url, reference in places.items():
        whole = whole.replace(f'"{url}"', f'"{reference}"')
    resolved: dict[str, Any] = json.loads(whole)
    return resolved


class FakeModel:
    """Says what the test wants it to: an answer's text, a whole ChatAnswer, or an exception."""

    def __init__(self) -> None:
        self.says: Callable[[ChatRequest], str | ChatAnswer | Exception] = lambda _: answer("pulse is high", "R1")
        self.asked: list[ChatRequest] = []
        self.in_flight = 0
        self.most_in_flight = 0

    async def chat(self, request: ChatRequest) -> ChatAnswer:
        self.asked.append(request)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            await asyncio.sleep(0.01)
            said = self.says(request)
        finally:
            self.in_flight -= 1
        if isinstance(said, Exception):
            raise said
        return said if isinstance(said, ChatAnswer) else ChatAnswer(said, "stop", 100, 20, 0.5, "fake-model")

    async def close(self) -> None:
        pass


def answer(*reasons: str) -> str:
    """`answer("text", "R1", ...)`: a model's text with those statements."""
    pairs = zip(reasons[::2], reasons[1::2], strict=True)
    return json.dumps({"reasons": [{"text": said, "sources": [source]} for said, source in pairs]})


class FakePayloads:
    """The events' bytes in memory."""

    def __init__(self) -> None:
        self.bytes: dict[str, bytes] = {}
        self.expected: list[str] = []

    def expect(self, events: Any) -> None:
        self.expected += [event.event_id for event in events]

    def has(self, event: EventRow) -> bool:
        return False

    def get(self, event: EventRow) -> bytes:
        if event.event_id not in self.bytes:
            raise PayloadGone("careloom.events[0]@0: its offset is no longer in the topic")
        return self.bytes[event.event_id]

    def forget(self) -> None:
        self.expected.append("forgotten")

    def close(self) -> None:
        pass
