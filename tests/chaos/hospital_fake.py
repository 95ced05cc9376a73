"""A recording FHIR server: it keeps every conditional create and every transaction truthfully, and can be made to fail.

Nothing that was written is ever forgotten or changed: what the account at the end rests on.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import unquote

import orjson
from serving import CutOff, Served
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from fhir_adapters.drafts import DRAFT_SYSTEM, IDENTITY_TAG
from fhir_adapters.write_fence import is_fence

_FHIR = "application/fhir+json"


@dataclass(frozen=True)
class Ask:
    """One request, as a fault sees it.

    Attributes:
        kind: "read" for reads and searches, "write" for transactions.
        event_id: that a transaction is of; "" for reads.
        word: "Patient/<id>" asked about, or "" where none is named.
    """

    kind: Literal["read", "write"]
    event_id: str = ""
    word: str = ""


@dataclass(frozen=True)
class Refusal:
    """What is answered instead of the truth.

    Attributes:
        status: of the answer; 0 cuts the connection.
        retry_after: seconds in its header.
        after: do what was asked first, so that only the answer is lost.
        late: seconds until it is done and answered.
    """

    status: int
    retry_after: int | None = None
    after: bool = False
    late: float = 0.0


@dataclass(frozen=True)
class Commit:
    """One transaction that created something: when, of which event, which drafts."""

    at: float
    event_id: str
    names: tuple[str, ...]


@dataclass
class Hospital:
    """The server. Close it.

    Attributes:
        fault: asked before each request.
        resources: reference -> resource, drafts and all that goes with them.
        commits: in their order; a write fence is none.
        fences, fenced_off: transactions that fenced another one off, and those that were refused for it.
        refused: how many requests a fault answered.
        asked_early: requests that came before their Retry-After was over, and how many came at all after one.
    """

    fault: Callable[[Ask], Refusal | None] = lambda ask: None
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    fences: int = 0
    fenced_off: int = 0
    commits: list[Commit] = field(default_factory=list)
    recognised: int = 0
    refused: int = 0
    asked_early: int = 0
    _by_tag: dict[str, list[str]] = field(default_factory=dict)
    _not_before: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.server = Served(
            Starlette(
                routes=[
                    Route("/fhir", self._transaction, methods=["POST"]),
                    Route("/fhir/metadata", self._metadata),
                    Route("/fhir/{type}", self._search),
                    Route("/fhir/{type}/{id}", self._read),
                ]
            )
        )
        self.url = f"{self.server.url}/fhir"

    def close(self) -> None:
        """Stop answering."""
        self.server.close()

    def drafts(self) -> dict[str, list[dict[str, Any]]]:
        """Draft identity (`<event>:<scenario>:<version>:<name>`) -> the resources that carry it."""
        found: dict[str, list[dict[str, Any]]] = {}
        for resource in list(self.resources.values()):
            if is_fence(resource):
                continue
            for tag in resource.get("meta", {}).get("tag", []):
                if tag.get("system") == DRAFT_SYSTEM:
                    found.setdefault(tag["code"], []).append(resource)
        return found

    # --- what it answers ----------------------------------------------------------------------------------------------

    async def _metadata(self, request: Request) -> Response:
        return _json({"resourceType": "CapabilityStatement", "fhirVersion": "4.0.1"})

    async def _read(self, request: Request) -> Response:
        reference = f"{request.path_params['type']}/{request.path_params['id']}"
        if (refusal := self._refusal(Ask("read", word=reference))) is not None:
            return refusal
        if request.path_params["type"] == "Patient":
            # everybody whom an event names is a patient here
            patient = {"resourceType": "Patient", "id": request.path_params["id"], "gender": "female"}
            return _json({**patient, "birthDate": "1970-05-17"})
        resource = self.resources.get(reference)
        return _json(resource) if resource else _outcome(404)

    async def _search(self, request: Request) -> Response:
        if (refusal := self._refusal(Ask("read", word=request.query_params.get("patient", "")))) is not None:
            return refusal
        return _json({"resourceType": "Bundle", "type": "searchset", "total": 0})

    async def _transaction(self, request: Request) -> Response:
        bundle = orjson.loads(await request.body())
        event_id = _event_of(bundle)
        refused = self.fault(Ask("write", event_id=event_id))
        now = time.monotonic()
        if now < self._not_before.get(event_id, 0.0):
            self.asked_early += 1
        if refused is not None and refused.late:
            await asyncio.sleep(refused.late)
        if refused is not None and not refused.after:
            return self._refuse(refused, event_id)
        answer = self._commit(bundle, event_id)
        return answer if refused is None else self._refuse(refused, event_id)

    def _commit(self, bundle: Mapping[str, Any], event_id: str) -> Response:
        """The whole transaction, or nothing: no other request comes between, as nothing here is awaited."""
        places: dict[str, str] = {}
        known: dict[str, bool] = {}
        for entry in bundle["entry"]:
            condition = unquote(entry["request"].get("ifNoneExist", "")).partition("=")[2]
            there = self._by_tag.get(condition, [])
            if len(there) > 1:
                self.fenced_off += not is_fence(bundle["entry"][0]["resource"])
                return _outcome(412)
            kind = entry["resource"]["resourceType"]
            known[entry["fullUrl"]] = bool(there)
            places[entry["fullUrl"]] = there[0] if there else f"{kind}/w{len(self.resources) + len(places) + 1}"
        body = orjson.dumps(bundle["entry"]).decode()
        for url, place in places.items():
            body = body.replace(f'"reference":"{url}"', f'"reference":"{place}"')
        names = []
        for entry in orjson.loads(body):
            if known[entry["fullUrl"]]:
                continue
            place, resource = places[entry["fullUrl"]], entry["resource"]
            self.resources[place] = {**resource, "id": place.partition("/")[2]}
            for key in _keys(resource):
                self._by_tag.setdefault(key, []).append(place)
                if key.startswith(f"{DRAFT_SYSTEM}|") and not is_fence(resource):
                    names.append(key.rpartition(":")[2])
        if is_fence(bundle["entry"][0]["resource"]):
            self.fences += 1
        elif names:
            self.commits.append(Commit(time.monotonic(), event_id, tuple(names)))
        else:
            self.recognised += 1
        answers = [
            {"response": {"status": "200 OK" if known[url] else "201 Created", "location": f"{place}/_history/1"}}
            for url, place in places.items()
        ]
        return _json({"resourceType": "Bundle", "type": "transaction-response", "entry": answers})

    def _refusal(self, ask: Ask) -> Any:
        refused = self.fault(ask)
        return None if refused is None else self._refuse(refused, "")

    def _refuse(self, refused: Refusal, event_id: str) -> Any:
        self.refused += 1
        if refused.retry_after and event_id:
            self._not_before[event_id] = time.monotonic() + refused.retry_after - 0.05
        if refused.status == 0:
            return CutOff()
        return _outcome(refused.status, refused.retry_after)


def _event_of(bundle: Mapping[str, Any]) -> str:
    """The event that a transaction is of: its Provenance carries the identity."""
    for entry in bundle["entry"]:
        for tag in entry["resource"].get("meta", {}).get("tag", []):
            if tag.get("system") == IDENTITY_TAG:
                return str(tag["code"]).partition(":")[0]
    return ""


def _keys(resource: Mapping[str, Any]) -> list[str]:
    """All that a condition may ask for: tags, and of a Device its identifiers."""
    tags = resource.get("meta", {}).get("tag", [])
    found = [f"{tag.get('system')}|{tag.get('code')}" for tag in tags]
    if resource["resourceType"] == "Device":
        found += [f"{one.get('system')}|{one.get('value')}" for one in resource["identifier"]]
    return found


def _json(resource: Mapping[str, Any]) -> Response:
    return Response(orjson.dumps(resource), media_type=_FHIR)


def _outcome(status: int, retry_after: int | None = None) -> Response:
    issue = {"severity": "error", "code": "processing", "diagnostics": "told to"}
    body = orjson.dumps({"resourceType": "OperationOutcome", "issue": [issue]})
    headers = {"Retry-After": str(retry_after)} if retry_after else {}
    return Response(body, status, headers, media_type=_FHIR)
