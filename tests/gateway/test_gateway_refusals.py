"""What the gateway does not take: the right status, an OperationOutcome, nothing of the body, and never 500."""

from __future__ import annotations

import gzip
import json
import logging

import pytest

CANARY = "MUSTERMANN-CANARY-4711"
LIMIT = 4 * 1024 * 1024
_PATIENT = {"resourceType": "Patient", "id": "p1", "name": [{"text": CANARY}]}


def _patient(**more: object) -> bytes:
    return json.dumps({**_PATIENT, **more}).encode()


def _deep(depth: int) -> bytes:
    nested = b'{"extension":[' * depth + b"]}" * depth
    return _patient()[:-1] + b',"x":' + nested + b"}"


WHOLE = _patient()

#: what is sent -> status; every body that can hold one holds the canary.
MALFORMED = {
    "truncated JSON": (WHOLE[:-7], {}, 400),
    "empty object": (b"{}", {}, 422),
    "white space": (b"  \n ", {}, 400),
    "byte order mark": (b"\xef\xbb\xbf" + WHOLE, {}, 400),
    "UTF-16": (WHOLE.decode().encode("utf-16"), {}, 400),
    "not UTF-8": (WHOLE.replace(b"p1", b"\xff\xfe"), {}, 400),
    "NaN": (WHOLE[:-1] + b',"x":NaN}', {}, 400),
    "Infinity": (WHOLE[:-1] + b',"x":-Infinity}', {}, 400),
    "a number beyond a double": (WHOLE[:-1] + b',"x":1e999}', {}, 400),
    "duplicate keys": (WHOLE[:-1] + b',"id":"p2"}', {}, 400),
    "nesting 100,000 deep": (_deep(100_000), {}, 400),
    "nesting 100 deep": (_deep(100), {}, 400),
    "a number of 5,000 digits": (WHOLE[:-1] + b',"x":' + b"9" * 5000 + b"}", {}, 400),
    "a fraction of 5,000 digits": (WHOLE[:-1] + b',"x":0.' + b"1" * 5000 + b"}", {}, 400),
    "lone surrogate": (WHOLE[:-1] + b',"gender":"\\ud800"}', {}, 400),
    "U+0000": (WHOLE[:-1] + b',"gender":"\\u0000"}', {}, 400),
    "two documents": (WHOLE + WHOLE, {}, 400),
    "trailing comma": (WHOLE[:-1] + b",}", {}, 400),
    "single quotes": (WHOLE.replace(b'"', b"'"), {}, 400),
    "a list": (b"[" + WHOLE + b"]", {}, 422),
    "a string": (json.dumps(CANARY).encode(), {}, 422),
    "null": (b"null", {}, 422),
    "no resourceType": (json.dumps({"name": [{"text": CANARY}]}).encode(), {}, 422),
    "unknown resourceType": (_patient(resourceType=CANARY), {}, 422),
    "resourceType that is no string": (_patient(resourceType={"a": CANARY}), {}, 422),
    "id that is a path": (_patient(id=f"../{CANARY}/x"), {}, 422),
    "id that is a number": (_patient(id=7), {}, 422),
    "meta that is a list": (_patient(meta=[CANARY], id={"x": CANARY}), {}, 422),
    "a resource of R5": (json.dumps({"resourceType": "Transport", "id": CANARY}).encode(), {}, 422),
    "a message": (json.dumps({"resourceType": "Bundle", "type": "message", "entry": []}).encode(), {}, 422),
    "a Bundle of no type": (
        json.dumps({"resourceType": "Bundle", "entry": [{"resource": _PATIENT}]}).encode(),
        {},
        422,
    ),
    "a Bundle whose entry is no list": (b'{"resourceType":"Bundle","type":"collection","entry":{"a":1}}', {}, 422),
    "a Bundle whose resource is a string": (
        json.dumps({"resourceType": "Bundle", "type": "collection", "entry": [{"resource": CANARY}]}).encode(),
        {},
        422,
    ),
    "too large": (_patient(text={"div": "x" * LIMIT}), {}, 413),
    "a gzip bomb": (gzip.compress(b"0" * 50_000_000), {"content_encoding": "gzip"}, 413),
    "gzip that is none": (WHOLE, {"content_encoding": "gzip"}, 400),
    "gzip cut short": (gzip.compress(WHOLE)[:-9], {"content_encoding": "gzip"}, 400),
    "an encoding that is not spoken": (WHOLE, {"content_encoding": "br"}, 415),
    "no content type": (WHOLE, {"content_type": ""}, 415),
    "wrong content type": (WHOLE, {"content_type": "text/plain"}, 415),
    "form content type": (WHOLE, {"content_type": "application/x-www-form-urlencoded"}, 415),
    "wrong charset": (WHOLE, {"content_type": "application/fhir+json; charset=gb2312"}, 415),
    "another FHIR version": (WHOLE, {"content_type": "application/fhir+json; fhirVersion=5.0"}, 422),
    "XML that is JSON": (WHOLE, {"content_type": "application/fhir+xml"}, 400),
    "XML with a document type": (
        b'<!DOCTYPE a [<!ENTITY b "' + CANARY.encode() + b'">]><Patient xmlns="http://hl7.org/fhir">&b;</Patient>',
        {"content_type": "application/fhir+xml"},
        400,
    ),
    "no token": (WHOLE, {"authorization": ""}, 401),
    "wrong token": (WHOLE, {"authorization": "Bearer wrong"}, 401),
    "another scheme": (WHOLE, {"authorization": "Basic YS10b2tlbi1mb3ItdGVzdHM="}, 401),
    "a token that is no ASCII": (WHOLE, {"authorization": b"Bearer \xfftoken"}, 401),
}


@pytest.fixture
def gateway(make_gateway, nowhere):
    return make_gateway(sections={"gateway": {"max_body_bytes": LIMIT}}, ledger=nowhere)


def assert_outcome(answer) -> None:
    assert answer.headers["content-type"] == "application/fhir+json"
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome"
    assert outcome["issue"][0]["severity"] in ("error", "fatal")
    assert outcome["issue"][0]["diagnostics"]


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused_with_an_outcome_that_echoes_nothing(name, gateway, broker, caplog) -> None:
    body, headers, status = MALFORMED[name]
    with caplog.at_level(logging.DEBUG):
        answer = gateway.send(body, **headers)
    assert answer.status_code == status
    assert_outcome(answer)
    assert broker.produced == []
    assert CANARY not in answer.text
    assert CANARY not in caplog.text
    assert CANARY not in gateway.client.get("/metrics").text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/fhir/hospital", 405),
        ("PATCH", "/fhir/hospital", 405),
        ("PUT", "/fhir/hospital", 405),
        ("POST", "/fhir/hospital/Patient/p1", 405),
        ("OPTIONS", "/fhir/hospital/Patient/p1", 405),
        ("POST", "/fhir/nobody", 401),
        ("POST", "/fhir/hospital/Patient/p1/_history", 404),
        ("POST", "/", 404),
        ("POST", "/fhir/", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/health", 405),
        ("PUT", "/fhir/hospital/Patient/p2", 422),
        ("PUT", "/fhir/hospital/Encounter/p1", 422),
        ("DELETE", "/fhir/hospital/Nonsense/p1", 422),
        ("DELETE", "/fhir/hospital/Patient/a%2Fb%00c", 404),
        ("DELETE", "/fhir/hospital/Patient/a_b", 422),
    ],
)
def test_a_wrong_place_or_method_is_refused_with_an_outcome(method, path, status, gateway, broker) -> None:
    headers = {"authorization": f"Bearer {gateway.token}", "content-type": "application/fhir+json"}
    answer = gateway.client.request(method, path, content=WHOLE, headers=headers)
    assert answer.status_code == status
    assert_outcome(answer)
    if status == 405:
        assert answer.headers["allow"]
    assert broker.produced == []


def test_an_unknown_source_and_a_wrong_token_get_the_same_answer(gateway) -> None:
    headers = {"authorization": "Bearer wrong", "content-type": "application/fhir+json"}
    unknown = gateway.client.post("/fhir/nobody", content=WHOLE, headers=headers)
    wrong = gateway.client.post("/fhir/hospital", content=WHOLE, headers=headers)
    assert (unknown.status_code, unknown.content, dict(unknown.headers)) == (
        wrong.status_code,
        wrong.content,
        dict(wrong.headers),
    )
    assert unknown.headers["www-authenticate"] == "Bearer"


def test_the_token_of_one_source_does_not_open_another(make_gateway, nowhere) -> None:
    other = {"name": "other", "fhir_version": "R4", "token": "another-token", "subscription": "none"}
    first = {"name": "hospital", "fhir_version": "R4", "token": "a-token-for-tests", "subscription": "none"}
    gateway = make_gateway(sections={"sources": [first, other]}, ledger=nowhere)
    headers = {"authorization": f"Bearer {gateway.token}", "content-type": "application/fhir+json"}
    assert gateway.client.post("/fhir/hospital", content=WHOLE, headers=headers).status_code == 204
    assert gateway.client.post("/fhir/other", content=WHOLE, headers=headers).status_code == 401


def test_a_body_over_the_limit_is_refused_by_its_length_before_it_is_read(gateway) -> None:
    def never():
        raise AssertionError("the body was read")
        yield b""

    headers = {
        "authorization": f"Bearer {gateway.token}",
        "content-type": "application/fhir+json",
        "content-length": "9" * 30,
    }
    from starlette.requests import Request

    from fhir_adapters.errors import TooLarge
    from pipelines.gateway.body import read_body

    async def receive():
        return next(never())

    import asyncio

    scope = {"type": "http", "method": "POST", "headers": [(k.encode(), v.encode()) for k, v in headers.items()]}
    with pytest.raises(TooLarge):
        asyncio.run(read_body(Request(scope, receive), limit=65_536, timeout=1))


def test_a_body_of_unknown_length_is_cut_off_at_the_limit(gateway) -> None:
    read = 0

    def endless():
        nonlocal read
        while True:
            read += 1
            yield b"x" * 10_000

    import asyncio

    from starlette.requests import Request

    from fhir_adapters.errors import TooLarge
    from pipelines.gateway.body import read_body

    chunks = endless()

    async def receive():
        return {"type": "http.request", "body": next(chunks), "more_body": True}

    with pytest.raises(TooLarge):
        asyncio.run(read_body(Request({"type": "http", "headers": []}, receive), limit=65_536, timeout=1))
    assert read == 7


def test_a_body_slower_than_its_deadline_is_refused_with_408() -> None:
    import asyncio

    from starlette.requests import Request

    from pipelines.gateway.answers import answer_to
    from pipelines.gateway.body import read_body
    from pipelines.gateway.errors import BodyTooSlow

    async def receive():
        await asyncio.Event().wait()

    with pytest.raises(BodyTooSlow) as caught:
        asyncio.run(read_body(Request({"type": "http", "headers": []}, receive), limit=10, timeout=0.01))
    assert answer_to(caught.value).status == 408


def test_a_fault_of_ours_is_answered_without_detail_and_counted(gateway, broker, caplog) -> None:
    broker.failure = ZeroDivisionError(CANARY)
    before = _faults(gateway)
    with caplog.at_level(logging.DEBUG):
        answer = gateway.send(WHOLE)
    assert answer.status_code == 500
    assert_outcome(answer)
    assert CANARY not in answer.text + caplog.text
    assert _faults(gateway) == before + 1


def test_an_invalid_resource_is_refused_or_taken_as_the_source_is_configured(make_gateway, nowhere, broker) -> None:
    body = json.dumps({"resourceType": "Encounter", "id": "e1", "status": CANARY, "class": {"code": "IMP"}}).encode()
    refusing = make_gateway({"validation": "reject"}, ledger=nowhere)
    answer = refusing.send(body)
    assert answer.status_code == 422
    assert answer.json()["issue"][0]["expression"] == ["Encounter.status"]
    assert CANARY not in answer.text
    assert broker.produced == []
    for taken, policy in enumerate(("flag", "pass"), start=1):
        assert make_gateway({"validation": policy}, ledger=nowhere).send(body).status_code == 204
        assert len(broker.produced) == taken


def _faults(gateway) -> float:
    page = gateway.client.get("/metrics").text
    lines = [line for line in page.splitlines() if 'reason="internal"' in line and "refused_total" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)
