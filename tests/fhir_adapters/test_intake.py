"""The one way in recognises what was sent, keeps its bytes, and refuses what it must without echo."""

from __future__ import annotations

import gzip
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fhir_adapters.errors import NotFhir, Refused, TooLarge, UnsupportedFormat
from fhir_adapters.event import FhirVersion
from fhir_adapters.intake import take
from fhir_adapters.notification import Intake, Pointer
from fhir_adapters.wire import Limits

JSON = "application/fhir+json"
CANARY = "Zq7CanaryPatient"


def post(resource: Any, version: FhirVersion = "R4", **options: Any) -> Intake:
    body = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
    return take("ward", version, "POST", None, None, JSON, body, **options)


def bundle(kind: str, *entries: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Bundle", "type": kind, "entry": list(entries)}


def encounter(resource_id: str, **more: Any) -> dict[str, Any]:
    return {"resourceType": "Encounter", "id": resource_id, "status": "planned", "class": {"code": "IMP"}, **more}


def test_a_bare_resource_keeps_every_byte() -> None:
    body = b'{ "resourceType":"Observation","id":"o","status":"final","valueQuantity":{"value":7.20},\n"a":[] }'
    (event,) = post(body).events
    assert event.body == body


def test_a_resource_without_an_id_is_known_by_its_bytes() -> None:
    (first,) = post({"resourceType": "Flag", "status": "active"}).events
    (again,) = post({"resourceType": "Flag", "status": "active"}).events
    (other,) = post({"resourceType": "Flag", "status": "inactive"}).events
    assert first.identity == again.identity != other.identity


def test_a_history_bundle_comes_out_oldest_first_with_its_deletion() -> None:
    versions = [encounter("e", meta={"versionId": v}) for v in ("2", "1")]
    gone = {"request": {"method": "DELETE", "url": "Encounter/e"}, "response": {"status": "204", "etag": 'W/"3"'}}
    events = post(bundle("history", gone, *({"resource": v} for v in versions))).events
    assert [(e.change, e.version_id) for e in events] == [("written", "1"), ("written", "2"), ("deleted", "3")]
    assert events[2].body == b""


def test_a_transaction_resolves_its_own_references_to_the_patient() -> None:
    patient = {"fullUrl": "urn:uuid:1", "resource": {"resourceType": "Patient", "id": "p"}}
    visit = {"fullUrl": "urn:uuid:2", "resource": encounter("e", subject={"reference": "urn:uuid:1"})}
    assert [event.patient for event in post(bundle("transaction", patient, visit)).events] == ["Patient/p"] * 2


def test_what_a_bundle_changes_without_sending_it_is_to_be_read_or_searched() -> None:
    patch = {"resource": {"resourceType": "Parameters"}, "request": {"method": "PATCH", "url": "Encounter/e"}}
    conditional = {"request": {"method": "DELETE", "url": "Encounter?identifier=x"}}
    intake = post(bundle("batch", patch, conditional))
    assert intake.to_read == (Pointer("Encounter", "e"),)
    assert intake.search
    assert not intake.events


def test_a_searchset_without_its_outcome_is_taken() -> None:
    outcome = {"resource": {"resourceType": "OperationOutcome"}, "search": {"mode": "outcome"}}
    assert [e.resource_id for e in post(bundle("searchset", {"resource": encounter("e")}, outcome)).events] == ["e"]


def test_the_same_version_twice_in_a_bundle_is_one_event() -> None:
    entry = {"resource": encounter("e", meta={"versionId": "1"})}
    assert len(post(bundle("collection", entry, entry)).events) == 1


@pytest.mark.parametrize(
    ("resource", "version", "message"),
    [
        ({"id": "x"}, "R4", "has no resourceType"),
        ({"resourceType": CANARY}, "R4", "none that FHIR"),
        ({"resourceType": "ImagingSelection", "id": "x"}, "R4", r"R5.*bound to R4"),
        ({"resourceType": "RequestGroup", "id": "x"}, "R5", r"R4 and R4B.*bound to R5"),
        ({"resourceType": "Encounter", "class": [{}]}, "R4", r"Encounter.class as an array.*R5.*bound to R4"),
        ({"resourceType": "Encounter", "class": {}}, "R5", r"Encounter.class as an object.*R4 and R4B.*bound to R5"),
        ({"resourceType": "MedicationRequest", "medication": {}}, "R4B", r"R5.*bound to R4B"),
        ({"resourceType": "MedicationRequest", "medicationReference": {}}, "R5", r"R4 and R4B.*bound to R5"),
        ({"resourceType": "Procedure", "performedPeriod": {}}, "R5", r"bound to R5"),
        ({"resourceType": "OperationOutcome"}, "R4", "no part of a record"),
        ({"resourceType": "Parameters"}, "R4", "no part of a record"),
        ({"resourceType": "Patient", "id": "../../etc/" + CANARY}, "R4", "must be a FHIR id"),
        ({"resourceType": "Patient", "id": 7}, "R4", "must be a FHIR id"),
        ({"resourceType": "Patient", "id": "p", "meta": {"versionId": CANARY + " "}}, "R4", "must be a FHIR id"),
        (bundle("message"), "R4", "messages are not taken"),
        (bundle("banana"), "R4", "Bundle.type"),
        ({"resourceType": "Bundle"}, "R4", "Bundle.type"),
        ({"resourceType": "Bundle", "type": "batch", "entry": {}}, "R4", "list of objects"),
        (bundle("collection", {"resource": [1]}), "R4", r"entry\[0\].resource: must be an object"),
        (bundle("collection", {"fullUrl": CANARY}), "R4", r"entry\[0\]: has no resource"),
        (bundle("collection", {"resource": {}, "request": CANARY}), "R4", "request: must be an object"),
        (bundle("collection", {"resource": encounter("a")}, {"resource": {"id": "b"}}), "R4", r"entry\[1\].resource"),
        (bundle("subscription-notification"), "R5", "bdl-13"),
    ],
)
def test_what_is_no_fhir_of_the_source_is_refused_whole_without_echo(
    resource: dict[str, Any], version: FhirVersion, message: str
) -> None:
    with pytest.raises(NotFhir, match=message) as refusal:
        post(resource, version)
    assert refusal.value.status == 422
    assert CANARY not in str(refusal.value)


def parameters(*more: dict[str, Any], kind: str = "event-notification") -> dict[str, Any]:
    status = [
        {"name": "subscription", "valueReference": {"reference": "https://h.example/fhir/Subscription/s"}},
        {"name": "type", "valueCode": kind},
    ]
    return {"resource": {"resourceType": "Parameters", "parameter": [*status, *more]}}


def announced(number: object, focus: str | None) -> dict[str, Any]:
    parts: list[dict[str, Any]] = [{"name": "event-number", "valueString": number}]
    if focus is not None:
        parts.append({"name": "focus", "valueReference": {"reference": focus}})
    return {"name": "notification-event", "part": parts}


def test_a_deleted_focus_is_a_deletion_of_the_patient_in_its_context() -> None:
    event = announced("4", "Encounter/e")
    event["part"].append({"name": "additional-context", "valueReference": {"reference": "Patient/p"}})
    gone = {"request": {"method": "DELETE", "url": "Encounter/e"}}
    (found,) = post(bundle("history", parameters(event), gone)).events
    assert (found.change, found.resource_id, found.patient) == ("deleted", "e", "Patient/p")


def test_several_events_come_out_in_the_order_of_their_numbers_and_context_is_no_event() -> None:
    events = [announced("7", "Encounter/b"), announced("8", "Encounter/a"), announced("9", "Encounter/c")]
    entries = [{"resource": encounter("a")}, {"resource": encounter("b")}, {"resource": {"resourceType": "Patient"}}]
    intake = post(bundle("history", parameters(*events), *entries))
    assert [event.resource_id for event in intake.events] == ["b", "a"]
    assert intake.to_read == (Pointer("Encounter", "c"),)
    assert intake.notification is not None
    assert intake.notification.numbers == (7, 8, 9)


def test_a_sender_that_names_no_focus_but_sends_resources_is_understood() -> None:
    context = {"resource": {"resourceType": "Patient", "id": "p"}, "request": {"method": "GET", "url": "Patient/p"}}
    intake = post(bundle("history", parameters(announced("1", None)), {"resource": encounter("a")}, context))
    assert [event.resource_id for event in intake.events] == ["a"]
    assert not intake.search


def test_camel_case_parameters_of_older_servers_are_understood() -> None:
    event = {"name": "notificationEvent", "part": [{"name": "eventNumber", "valueString": "3"}]}
    since = {"name": "eventsSinceSubscriptionStart", "valueString": "3"}
    note = post(bundle("history", parameters(since, event))).notification
    assert note is not None
    assert (note.numbers, note.events_since_start) == ((3,), 3)


@pytest.mark.parametrize(
    "status",
    [
        parameters(announced("-1", "Encounter/e")),
        parameters(announced("two", "Encounter/e")),
        parameters(announced("9" * 30, "Encounter/e")),
        parameters(announced("1", "https://elsewhere.example/fhir/Encounter/e")),
        parameters(announced("1", f"urn:{CANARY}")),
        parameters(kind=CANARY),
        parameters({"name": "type", "valueCode": "heartbeat"}),
    ],
)
def test_a_notification_that_is_not_to_the_standard_is_refused(status: dict[str, Any]) -> None:
    with pytest.raises(NotFhir) as refusal:
        post(bundle("history", status))
    assert CANARY not in str(refusal.value)


def test_an_r5_notification_comes_in_as_json_with_its_numbers_as_strings() -> None:
    status = {
        "resourceType": "SubscriptionStatus",
        "type": "event-notification",
        "subscription": {"reference": "https://h.example/fhir/Subscription/s"},
        "eventsSinceSubscriptionStart": "12",
        "notificationEvent": [{"eventNumber": "12", "focus": {"reference": "https://h.example/fhir/Encounter/e"}}],
    }
    visit = {"resource": {"resourceType": "Encounter", "id": "e", "class": [{}]}, "fullUrl": "urn:uuid:1"}
    intake = post(bundle("subscription-notification", {"resource": status}, visit), "R5")
    assert [event.resource_id for event in intake.events] == ["e"]
    assert intake.notification is not None
    assert intake.notification.events_since_start == 12


def test_rest_hooks_put_ping_and_delete() -> None:
    body = json.dumps(encounter("e")).encode()
    assert len(take("ward", "R4", "PUT", "Encounter", "e", JSON, body).events) == 1
    assert take("ward", "R4", "POST", None, None, "application/x-www-form-urlencoded", b"") == Intake(search=True)
    ping = take("ward", "R4", "POST", "Encounter", None, None, b"")
    assert (ping.search, ping.search_type) == (True, "Encounter")
    (gone,) = take("ward", "R4", "DELETE", "Encounter", "e", None, b"").events
    assert (gone.change, gone.resource_type, gone.resource_id) == ("deleted", "Encounter", "e")


@pytest.mark.parametrize(
    ("method", "path_type", "path_id", "body"),
    [
        ("PUT", "Encounter", "other", encounter("e")),
        ("PUT", "Patient", "e", encounter("e")),
        ("PUT", "Banana", "e", encounter("e")),
        ("PUT", "Encounter", "e", None),
        ("DELETE", None, None, None),
        ("DELETE", "Encounter", None, None),
        ("DELETE", "Encounter", "a/b", None),
        ("POST", "Banana", None, None),
        ("PATCH", "Encounter", "e", encounter("e")),
    ],
)
def test_a_rest_hook_whose_path_and_body_differ_is_refused(
    method: str, path_type: str | None, path_id: str | None, body: dict[str, Any] | None
) -> None:
    with pytest.raises(NotFhir):
        take("ward", "R4", method, path_type, path_id, JSON, b"" if body is None else json.dumps(body).encode())


def test_size_encoding_and_content_type_are_checked_before_anything_is_read() -> None:
    limits = Limits(max_body_bytes=1000, max_depth=8)
    with pytest.raises(TooLarge):
        post(gzip.compress(b" " * 100_000), limits=limits, content_encoding="gzip")
    with pytest.raises(UnsupportedFormat):
        post(b"{}", limits=limits, content_encoding="br")
    with pytest.raises(UnsupportedFormat):
        take("ward", "R4", "POST", None, None, "text/html", b"<html/>")


def test_an_absolute_reference_below_the_configured_base_is_the_sources_own() -> None:
    visit = encounter("e", subject={"reference": "https://h.example/fhir/Patient/p"})
    assert post(visit, base_url="https://h.example/fhir/").events[0].patient == "Patient/p"
    assert post(visit).events[0].patient is None


_KEYS = """resourceType type entry resource request method url fullUrl id meta versionId parameter name part valueCode
    valueReference reference subscription focus notificationEvent eventNumber response etag"""
_WORDS = """Bundle Patient Encounter Parameters SubscriptionStatus history batch subscription-notification
    event-notification handshake DELETE PUT PATCH subscription type Encounter/1 urn:uuid:1 1 -1"""
KEYS, WORDS = st.sampled_from(_KEYS.split()), st.sampled_from(_WORDS.split())
WILD = st.recursive(
    WORDS | st.none() | st.integers() | st.booleans(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=6),
    max_leaves=25,
)


@given(resource=st.dictionaries(KEYS, WILD, max_size=6), version=st.sampled_from(["R4", "R4B", "R5"]))
def test_no_json_causes_anything_but_an_intake_or_a_refusal(resource: dict[str, Any], version: FhirVersion) -> None:
    try:
        assert isinstance(post(resource, version), Intake)
    except Refused as refusal:
        assert refusal.status in (400, 413, 415, 422)


@pytest.mark.parametrize("named", [[], {}, 5, None, True, "Nope"])
def test_an_entry_whose_type_is_no_type_is_refused_and_breaks_no_reader(named: object) -> None:
    bundle = {
        "resourceType": "Bundle",
        "type": "collection",
        "entry": [{"resource": {"resourceType": named, "id": "x"}}],
    }
    with pytest.raises(Refused):
        take("ward", "R4", "POST", None, None, "application/fhir+json", json.dumps(bundle).encode())
