"""Whatever is sent to the gateway, it answers 2xx or 4xx with an OperationOutcome, and never 500."""

from __future__ import annotations

import gzip
import json

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

_settings = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

NAMES = st.sampled_from(
    [
        "resourceType",
        "id",
        "meta",
        "versionId",
        "lastUpdated",
        "type",
        "entry",
        "resource",
        "fullUrl",
        "request",
        "method",
        "url",
        "response",
        "etag",
        "parameter",
        "name",
        "part",
        "valueReference",
        "reference",
        "valueCode",
        "valueString",
        "subject",
        "status",
        "class",
        "code",
        "coding",
        "system",
        "security",
        "extension",
        "subscription",
        "notificationEvent",
        "eventNumber",
        "focus",
        "error",
        "topic",
        "text",
        "div",
        "contained",
    ]
)
VALUES = st.sampled_from(
    [
        "Patient",
        "Bundle",
        "Parameters",
        "SubscriptionStatus",
        "Encounter",
        "Task",
        "history",
        "collection",
        "transaction",
        "subscription-notification",
        "event-notification",
        "heartbeat",
        "notification-event",
        "focus",
        "event-number",
        "subscription",
        "status",
        "DELETE",
        "PATCH",
        "POST",
        "Patient/p1",
        "http://h/fhir/Patient/p1/_history/2",
        "urn:uuid:1",
        "active",
        "AIAST",
        "1",
        "-1",
        'W/"3"',
        "2026-11-22T12:00:00Z",
    ]
)
LEAVES = st.one_of(VALUES, st.text(max_size=8), st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False))
TREES = st.recursive(
    LEAVES,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(NAMES | st.text(max_size=4), inside, max_size=6),
    max_leaves=25,
)
RESOURCES = st.builds(
    lambda kind, rest: {**rest, "resourceType": kind}, VALUES, st.dictionaries(NAMES, TREES, max_size=6)
)
BUNDLES = st.builds(
    lambda kind, resources: {"resourceType": "Bundle", "type": kind, "entry": [{"resource": r} for r in resources]},
    VALUES,
    st.lists(RESOURCES, max_size=3),
)
HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(
            ["application/fhir+json", "application/fhir+xml", "text/plain; charset=\x7f", ";;="]
        )
        | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30),
        "content-encoding": st.sampled_from(["gzip", "identity", "x-gzip", "deflate", ""]),
        "traceparent": st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    },
)
PATHS = st.sampled_from(
    ["", "/Patient", "/Patient/p1", "/Task/1", "/%00", "/Patient/%F0%9F%92%89", "/..%2f/x", "/a/b/c"]
)
METHODS = st.sampled_from(["POST", "PUT", "DELETE", "PATCH", "GET"])


def assert_answered(answer) -> None:
    assert answer.status_code in (204, 400, 404, 405, 413, 415, 422), answer.text
    if answer.status_code != 204:
        assert answer.json()["resourceType"] == "OperationOutcome"


def gateway_of(make_gateway, nowhere, version: str):
    return make_gateway({"fhir_version": version, "validation": "flag"}, ledger=nowhere)


@_settings
@given(body=st.binary(max_size=200), headers=HEADERS, path=PATHS, method=METHODS)
def test_any_bytes_by_any_way_are_answered(body, headers, path, method, make_gateway, nowhere) -> None:
    gateway = _shared(make_gateway, nowhere)["R4"]
    headers = {"authorization": f"Bearer {gateway.token}", **headers}
    assert_answered(gateway.client.request(method, f"/fhir/hospital{path}", content=body, headers=headers))


@_settings
@given(resource=RESOURCES | BUNDLES, version=st.sampled_from(["R4", "R4B", "R5"]), packed=st.booleans())
def test_any_json_that_looks_like_fhir_is_answered(resource, version, packed, make_gateway, nowhere) -> None:
    body = json.dumps(resource).encode()
    encoding = "gzip" if packed else "identity"
    gateway = _shared(make_gateway, nowhere)[version]
    assert_answered(gateway.send(gzip.compress(body) if packed else body, content_encoding=encoding))


@_settings
@given(data=st.data())
def test_a_notification_broken_anywhere_is_answered(data, make_gateway, nowhere) -> None:
    parameters = [
        {"name": "subscription", "valueReference": {"reference": "Subscription/s1"}},
        {"name": "type", "valueCode": "event-notification"},
        {"name": "notification-event", "part": [{"name": "event-number", "valueString": "1"}]},
    ]
    status = {"resourceType": "Parameters", "parameter": parameters}
    bundle = {"resourceType": "Bundle", "type": "history", "entry": [{"resource": status}, {"resource": {}}]}
    _break(data, bundle)
    assert_answered(_shared(make_gateway, nowhere)["R4"].send(json.dumps(bundle)))


def _break(data, node) -> None:
    """Put something else in a place chosen by hypothesis."""
    while True:
        keys = sorted(node) if isinstance(node, dict) else range(len(node))
        if not keys:
            return
        key = data.draw(st.sampled_from(list(keys)))
        if not isinstance(node[key], (dict, list)) or data.draw(st.booleans()):
            node[key] = data.draw(TREES)
            return
        node = node[key]


_gateways: dict[int, dict] = {}


def _shared(make_gateway, nowhere) -> dict:
    """One gateway a version for all examples of a test."""
    key = id(make_gateway)
    if key not in _gateways:
        _gateways.clear()
        _gateways[key] = {version: gateway_of(make_gateway, nowhere, version) for version in ("R4", "R4B", "R5")}
    return _gateways[key]
