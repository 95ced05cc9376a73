"""Every file of the shared test data is taken or refused as its standard says; the tables name what is expected."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from fhir_adapters.errors import MalformedJson, NotFhir, Refused
from fhir_adapters.event import FhirVersion
from fhir_adapters.intake import take
from fhir_adapters.notification import Intake, Kind, Notification
from fhir_adapters.strict_json import bundle_resources
from fhir_adapters.validate import problems

JSON = "application/fhir+json"
BOM = b"\xef\xbb\xbf"

ENCOUNTER = "Encounter/86009987-eabe-42bf-8c02-b112b18cb616"
PATIENT = "Patient/1599eb66-431a-447c-a3de-6897fe9ae9a1"

#: What a notification of either IG is: kind, events, to read, search, events since start, failed.
NOTIFICATIONS = {
    "handshake": (Kind.HANDSHAKE, 0, 0, False, 0, False),
    "heartbeat": (Kind.HEARTBEAT, 0, 0, False, 2, False),
    "empty": (Kind.EVENT, 0, 0, True, 2, False),
    "empty-with-auth": (Kind.EVENT, 0, 0, True, 2, False),
    "id-only": (Kind.EVENT, 0, 1, False, 2, False),
    "id-only-with-auth": (Kind.EVENT, 0, 1, False, 2, False),
    "id-only-with-query": (Kind.EVENT, 0, 1, False, 2, False),
    "full-resource": (Kind.EVENT, 1, 0, False, 2, False),
    "full-resource-with-query": (Kind.EVENT, 1, 0, False, 2, False),
    "multi-resource": (Kind.EVENT, 1, 0, False, 2, False),
    "error": (Kind.QUERY_STATUS, 0, 0, False, 3, True),
}


def summary(intake: Intake) -> tuple[Kind, int, int, bool, int | None, bool]:
    note = intake.notification
    assert isinstance(note, Notification)
    return note.kind, len(intake.events), len(intake.to_read), intake.search, note.events_since_start, note.failed


def post(version: FhirVersion, body: bytes, content_type: str = JSON) -> Intake:
    return take("ward", version, "POST", None, None, content_type, body)


@pytest.mark.parametrize("name", NOTIFICATIONS)
@pytest.mark.parametrize("version", ["R4", "R4B"])
def test_each_notification_of_the_ig_is_taken_as_it_says(shared_data: Path, version: FhirVersion, name: str) -> None:
    folder = {"R4": "subscription-r4-backport", "R4B": "subscription-r4b"}[version]
    body = (shared_data / folder / f"Bundle-{version.lower()}-notification-{name}.json").read_bytes()
    intake = post(version, body)
    assert summary(intake) == NOTIFICATIONS[name]
    note = intake.notification
    assert note is not None
    assert note.subscription == "Subscription/admission"
    assert note.topic == "http://hl7.org/SubscriptionTopic/admission"
    for event in intake.events:
        assert f"{event.resource_type}/{event.resource_id}" == ENCOUNTER
        assert event.patient == PATIENT
        assert event.body in bundle_resources(body)
    assert all(pointer.reference == ENCOUNTER for pointer in intake.to_read)
    if note.kind is Kind.EVENT:
        assert note.numbers == (2,)
    assert note.errors == (("no-response",) if name == "error" else ())


@pytest.mark.parametrize("name", NOTIFICATIONS)
@pytest.mark.parametrize("version", ["R4", "R4B"])
def test_a_notification_of_another_version_is_refused_with_both_named(
    shared_data: Path, version: FhirVersion, name: str
) -> None:
    folder = {"R4": "subscription-r4-backport", "R4B": "subscription-r4b"}[version]
    body = (shared_data / folder / f"Bundle-{version.lower()}-notification-{name}.json").read_bytes()
    others: tuple[FhirVersion, ...] = ("R4", "R4B", "R5")
    for other in others:
        if other != version:
            with pytest.raises(NotFhir, match=rf"FHIR {version}\b.*bound to {other}\b"):
                post(other, body)


@pytest.mark.parametrize(
    ("version", "file", "expected"),
    [
        ("R4", "subscription-r4-backport/Parameters-r4-notification-status.json", Kind.EVENT),
        ("R4B", "subscription-r4b/SubscriptionStatus-r4b-notification-status.json", Kind.EVENT),
        ("R4", "subscription-r4-backport/Subscription-subscription-admission.json", "Subscription"),
        ("R4", "subscription-r4-backport/Subscription-subscription-multi-resource.json", "Subscription"),
        ("R4", "subscription-r4-backport/Subscription-subscription-zulip.json", "Subscription"),
        ("R4", "subscription-r4-backport/Basic-r4-encounter-complete.json", "Basic"),
        ("R4B", "subscription-r4b/SubscriptionTopic-r4b-encounter-complete.json", "SubscriptionTopic"),
    ],
)
def test_what_stands_beside_the_notifications_is_a_status_or_a_resource(
    shared_data: Path, version: FhirVersion, file: str, expected: Kind | str
) -> None:
    intake = post(version, (shared_data / file).read_bytes())
    if isinstance(expected, Kind):
        assert intake.notification is not None
        assert intake.notification.kind is expected
        assert intake.search  # it numbers an event and does not say of what
        assert not intake.events
    else:
        assert [(event.resource_type, event.patient) for event in intake.events] == [(expected, None)]


@pytest.mark.parametrize(
    ("name", "kind", "events", "to_read"),
    [
        ("handshake", Kind.HANDSHAKE, [], []),
        ("id-only", Kind.EVENT, [], ["Encounter/2"]),
        ("full-resource", Kind.EVENT, [("Encounter", "2", "1", "Patient/ABC")], []),
    ],
)
def test_r5_notifications_come_in_as_xml(
    shared_data: Path, name: str, kind: Kind, events: list[tuple[str, str, str, str]], to_read: list[str]
) -> None:
    body = (shared_data / "subscription-r5" / f"notification-{name}.xml").read_bytes()
    intake = post("R5", body, "application/fhir+xml; charset=UTF-8; fhirVersion=5.0")
    assert intake.notification is not None
    assert intake.notification.kind is kind
    assert [(e.resource_type, e.resource_id, e.version_id, e.patient) for e in intake.events] == events
    assert [pointer.reference for pointer in intake.to_read] == to_read
    for other in ("R4", "R4B"):
        with pytest.raises(NotFhir):
            post(other, body, "application/fhir+xml")


LIVE = {
    "handshake": (Kind.HANDSHAKE, 0, 0, False),
    "heartbeat": (Kind.HEARTBEAT, 0, 0, False),
    "id-event-notification": (Kind.EVENT, 0, 1, False),
    "full-event-notification": (Kind.EVENT, 1, 0, False),
    "empty-event-notification": (Kind.EVENT, 0, 0, True),
}


def test_every_captured_delivery_of_a_real_server_is_taken(shared_data: Path) -> None:
    files = sorted((shared_data / "live-notifications").glob("*.json"))
    assert len(files) == 17
    for file in files:
        captured = json.loads(file.read_bytes())
        body = json.dumps(captured["body"], ensure_ascii=False).encode()
        if file.stem == "13-classic-classic":
            _, kind, resource_id = captured["path"].strip("/").split("/")
            content_type = captured["headers"]["content-type"]
            intake = take("ward", "R4", captured["method"], kind, resource_id, content_type, body)
            (event,) = intake.events
            assert (event.resource_type, event.version_id) == ("Observation", "1"), file.name
            assert event.patient == "Patient/c4558670-a3b2-4827-9edb-29b7e52ebf3d", file.name
            assert event.body == body
            continue
        intake = post("R4", body, captured["headers"]["content-type"])
        kind, *rest = LIVE[next(ending for ending in LIVE if file.stem.endswith(ending))]
        assert [*summary(intake)[:4]] == [kind, *rest], file.name
        for event in intake.events:
            assert event.version_id == "1", file.name
            assert event.patient == "Patient/c4558670-a3b2-4827-9edb-29b7e52ebf3d", file.name


#: file -> the error with its byte order mark taken off, or what the events are and what validation finds in them.
INVALID: dict[str, type[Refused] | tuple[int, bool]] = {
    "Bundle-BatchWithInvalidEleEnums.json": (6, True),
    "Bundle-InvalidBundleType.json": NotFhir,
    "Bundle-TransactionWithInvalidBundleEntry.json": MalformedJson,
    "Bundle-TransactionWithInvalidResourceType.json": (1, False),
    "Bundle-TransactionWithMultipleEntriesModifyingSameResource.json": (2, True),
    "Bundle-TransactionWithMultipleResourcesWithSameFullUrl.json": (2, False),
    "Bundle-TypeMissing.json": NotFhir,
    "Import-InvalidPatient.ndjson": MalformedJson,
    "InvalidObservation.json": (1, True),
    "MoneyWithWrongDecimal.json": NotFhir,
    "ObservationWithInvalidDecimalSpecification.json": (1, False),
    "ObservationWithInvalidStatus.json": (1, True),
    "ObservationWithInvalidStatus.xml": (1, True),
    "ObservationWithNoCode.json": (1, True),
    "ObservationWithTemperature.json": (1, True),
    "Patient.json": (1, True),
    "PatientMissingResourceType.json": NotFhir,
    "PatientWithUnknownElements.json": (1, True),
    "ProvenanceHeader.json": (1, True),
    "ResourceWrapperNoVersion.json": NotFhir,
    "SearchDataBatch.json": (15, True),
    "WeightInGrams.json": (1, True),
}


def test_every_invalid_file_is_in_the_table(shared_data: Path) -> None:
    assert {file.name for file in (shared_data / "invalid").iterdir()} == set(INVALID)


@pytest.mark.parametrize("name", INVALID)
def test_invalid_input_is_refused_or_its_problems_are_found(shared_data: Path, name: str) -> None:
    raw = (shared_data / "invalid" / name).read_bytes()
    content_type = "application/fhir+xml" if name.endswith(".xml") else JSON
    if raw.startswith(BOM) and not name.endswith(".xml"):
        with pytest.raises(MalformedJson, match="byte order mark"):
            post("R4", raw, content_type)
    expected = INVALID[name]
    body = raw.removeprefix(BOM)
    if isinstance(expected, type):
        with pytest.raises(expected):
            post("R4", body, content_type)
        return
    intake = post("R4", body, content_type)
    found = [problem for event in intake.events for problem in problems(json.loads(event.body or b"{}"), "R4")]
    assert (len(intake.events), bool(found)) == expected


#: R4 examples that R4B's models find something wrong with: rightly, but for Evidence (R4 and R4B differ).
WRONG_EXAMPLES = {
    "Observation-For-Patient-f001.json",
    "ObservationWithBloodPressure.json",
    "evidence-example.json",
}


def test_every_r4_example_is_taken_with_its_bytes_and_nothing_wrong_is_found_in_the_good_ones(
    shared_data: Path,
) -> None:
    files = sorted((shared_data / "r4-examples").glob("*.json"))
    assert len(files) > 90
    wrong = set()
    for file in files:
        raw = file.read_bytes()
        intake = post("R4", raw)
        assert intake.notification is None, file.name
        whole = json.loads(raw)
        if whole["resourceType"] != "Bundle":
            assert [event.body for event in intake.events] == [raw], file.name
        else:
            assert len(intake.events) + len(intake.to_read) + intake.search > 0, file.name
        assert all(event.body in raw for event in intake.events), file.name
        if any(problems(json.loads(event.body), "R4") for event in intake.events if event.body):
            wrong.add(file.name)
    assert wrong == WRONG_EXAMPLES


def test_what_hapi_sends_is_taken(shared_data: Path) -> None:
    folder = shared_data.parent / "hapi" / "captured"
    if not folder.is_dir():
        pytest.skip("../shared/hapi is not there")
    for file in sorted(folder.glob("*.json")):
        captured = json.loads(file.read_bytes())
        headers = {name.lower(): value for name, value in captured["headers"]}
        body = captured["body"].encode()
        parts = captured["path"].partition("?")[0].split("/") if "?" not in captured["path"] else []
        path = captured["path"].split("/")[-2:] if captured["method"] in ("PUT", "DELETE") else [None, None]
        intake = take("ward", "R4", captured["method"], path[0], path[1], headers.get("content-type"), body)
        if "topic" in parts:
            assert intake.notification is not None, file.name
        if captured["method"] == "DELETE":
            assert [(e.resource_type, e.change, e.body) for e in intake.events] == [("Task", "deleted", b"")]
        elif not body:
            assert intake.search, file.name
        else:
            assert intake.events, file.name
