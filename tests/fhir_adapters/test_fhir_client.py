"""The FHIR client maps every answer to the right error, follows pages safely, retries only when told."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import pytest

from fhir_adapters import trace_context
from fhir_adapters.errors import FhirConflict, FhirNotFound, FhirRejected, FhirServerError, FhirUnavailable
from fhir_adapters.fhir_client import FhirClient, Retry

BASE = "http://h.example/fhir"
CANARY = "Zq7CanaryPatient"

Handler = Callable[[httpx.Request], httpx.Response]


def ask(handler: Handler, action: Callable[[FhirClient], Coroutine[Any, Any, Any]], **options: Any) -> Any:
    async def run() -> Any:
        async with FhirClient(BASE, transport=httpx.MockTransport(handler), **options) as client:
            return await action(client)

    return asyncio.run(run())


def answering(status: int, body: Any = None, **headers: str) -> Handler:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: httpx.Response(status, content=content, headers=named)


OUTCOME = {
    "resourceType": "OperationOutcome",
    "issue": [{"severity": "error", "code": "processing", "diagnostics": f"HAPI-0989: {CANARY}"}, {"code": CANARY}],
}


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, FhirRejected),
        (401, FhirRejected),
        (302, FhirRejected),
        (404, FhirNotFound),
        (410, FhirNotFound),
        (409, FhirConflict),
        (412, FhirConflict),
        (422, FhirRejected),
        (429, FhirUnavailable),
        (500, FhirUnavailable),
        (503, FhirUnavailable),
    ],
)
def test_each_status_is_the_error_it_means_and_echoes_codes_only(status: int, error: type[FhirServerError]) -> None:
    with pytest.raises(error) as failure:
        ask(answering(status, OUTCOME), lambda c: c.read("Patient", CANARY))
    assert type(failure.value) is error
    assert failure.value.status == status
    assert "processing, HAPI-0989" in str(failure.value)
    assert CANARY not in str(failure.value)


@pytest.mark.parametrize(
    ("header", "expected"), [("7", 7.0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("soon", None), (None, None)]
)
def test_retry_after_is_read_as_seconds_or_as_a_date(header: str | None, expected: float | None) -> None:
    headers = {"retry_after": header} if header is not None else {}
    with pytest.raises(FhirUnavailable) as failure:
        ask(answering(503, b"", **headers), lambda c: c.read("Patient", "p"))
    assert failure.value.retry_after == expected


@pytest.mark.parametrize("body", [b"<html>login</html>", b"", b"[]", b'{"a":1}'])
def test_a_page_that_is_no_fhir_counts_as_no_answer(body: bytes) -> None:
    with pytest.raises(FhirUnavailable):
        ask(answering(200, body), lambda c: c.read("Patient", "p"))


def test_no_connection_is_unavailable_and_not_retried_by_default() -> None:
    calls = []

    def refuse(request: httpx.Request) -> httpx.Response:
        calls.append(request)
        raise httpx.ConnectError(CANARY)

    with pytest.raises(FhirUnavailable) as failure:
        ask(refuse, lambda c: c.search("Patient", {"name": CANARY}))
    assert len(calls) == 1
    assert CANARY not in str(failure.value)
    assert failure.value.__cause__ is None


def test_reads_are_retried_when_told_and_writes_never() -> None:
    calls: list[str] = []

    def flaky(request: httpx.Request) -> httpx.Response:
        calls.append(request.method)
        return httpx.Response(503) if len(calls) < 3 else httpx.Response(200, json={"resourceType": "Patient"})

    retry = Retry(attempts=3, base=0.001)
    assert ask(flaky, lambda c: c.read("Patient", "p"), retry=retry).resource == {"resourceType": "Patient"}
    assert len(calls) == 3
    calls.clear()
    with pytest.raises(FhirUnavailable):
        ask(flaky, lambda c: c.create({"resourceType": "Patient"}), retry=retry)
    assert calls == ["POST"]


def page(*ids: str, next_url: str | None = None) -> dict[str, Any]:
    entries = [{"resource": {"resourceType": "Patient", "id": i}, "search": {"mode": "match"}} for i in ids]
    outcome = {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}}
    links = [{"relation": "next", "url": next_url}] if next_url else []
    return {"resourceType": "Bundle", "type": "searchset", "entry": [*entries, outcome], "link": links}


def test_a_search_follows_pages_at_its_own_host_with_its_token_and_without_cache() -> None:
    asked: list[httpx.Request] = []

    def pages(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        last = "_getpages" in str(request.url)
        return httpx.Response(
            200, json=page("b") if last else page("a", next_url="http://inside.example/fhir?_getpages=1&x=%7C")
        )

    found = ask(pages, lambda c: c.search("Patient", {"name": "x|y"}), token="secret")
    assert [reading.resource["id"] for reading in found.resources] == ["a", "b"]
    assert not found.truncated
    assert {request.url.host for request in asked} == {"h.example"}
    assert str(asked[1].url) == f"{BASE}?_getpages=1&x=%7C"
    assert all(request.headers["cache-control"] == "no-cache" for request in asked)
    assert all(request.headers["authorization"] == "Bearer secret" for request in asked)


def test_a_next_page_outside_the_base_url_is_not_followed() -> None:
    with pytest.raises(FhirRejected):
        ask(answering(200, page("a", next_url="http://h.example/admin?x=1")), lambda c: c.search("Patient"))


def test_a_search_stops_at_its_cap_and_says_so() -> None:
    endless = answering(200, page("a", "b", next_url=f"{BASE}?_getpages=1"))
    found = ask(endless, lambda c: c.search("Patient", cap=5))
    assert len(found.resources) == 5
    assert found.truncated


def test_a_reading_keeps_the_bytes_and_the_version() -> None:
    body = b'{"resourceType":"Observation","valueQuantity":{"value":7.20}}'
    reading = ask(answering(200, body, etag='W/"3"'), lambda c: c.read("Observation", "o"))
    assert (reading.body, reading.version) == (body, "3")


def test_conditions_are_sent_as_headers() -> None:
    sent: dict[str, httpx.Headers] = {}

    def remember(request: httpx.Request) -> httpx.Response:
        sent[request.method] = request.headers
        return httpx.Response(200, json={"resourceType": "Flag", "id": "f", "meta": {"versionId": "2"}})

    created = ask(remember, lambda c: c.create({"resourceType": "Flag"}, if_none_exist="_tag=a%7Cb"))
    assert (created.reference, created.version, created.created) == ("Flag/f", "2", False)
    ask(remember, lambda c: c.update({"resourceType": "Flag", "id": "f"}, if_match="1"))
    assert sent["POST"]["if-none-exist"] == "_tag=a%7Cb"
    assert sent["PUT"]["if-match"] == 'W/"1"'


@pytest.mark.parametrize(("kind", "resource_id"), [("Patient", "../x"), ("Patient/x", "y"), ("Patient", "")])
def test_what_is_no_fhir_id_never_gets_into_a_url(kind: str, resource_id: str) -> None:
    with pytest.raises(ValueError):
        ask(answering(200), lambda c: c.read(kind, resource_id))


def test_every_request_carries_the_trace_context_of_what_is_worked_on() -> None:
    seen: list[str | None] = []

    def handler(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("traceparent"))
        return httpx.Response(200, json={"resourceType": "Patient", "id": "p"})

    async def play() -> None:
        async with FhirClient(BASE, transport=httpx.MockTransport(handler)) as client:
            await client.read("Patient", "p")
            trace_context.current.set(trace_context.derived("ab" * 32))
            await client.read("Patient", "p")

    asyncio.run(play())
    assert seen == [None, f"00-{'ab' * 16}-{'ab' * 8}-00"]
