"""What the gateway takes: every notification file, by every way, 2xx only after Kafka has it."""

from __future__ import annotations

import asyncio
import gzip
import json
import logging
from pathlib import Path

import httpx
import pytest

from fhir_adapters.errors import FhirUnavailable
from fhir_adapters.trace_context import parse
from pipelines.gateway import create_app
from pipelines.kafka.envelope import unpack
from pipelines.kafka.topics import BrokerUnavailable
from pipelines.ledger import Ledger, Position

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
FOLDERS = {"subscription-r4-backport": "R4", "subscription-r4b": "R4B", "subscription-r5": "R5"}

PATIENT = b'{"resourceType": "Patient",  "id": "p1", "meta": {"versionId": "3"}, "x": 7.20}'
AIAST = {"system": "http://terminology.hl7.org/CodeSystem/v3-ObservationValue", "code": "AIAST"}


def files(folder: str) -> list[Path]:
    return sorted((DATA / folder).glob("*notification*")) if (DATA / folder).is_dir() else []


def asks_for_a_search(file: Path) -> bool:
    """Whether it says that something changed and not what: an empty payload, or the bare status of one."""
    return "notification-empty" in file.name or "notification-status" in file.name


def test_a_resource_is_taken_as_the_bytes_that_came_and_answered_204_without_a_body(
    make_gateway, nowhere, broker
) -> None:
    trace = f"00-{'a' * 32}-{'b' * 16}-01"
    answer = make_gateway(ledger=nowhere).send(PATIENT, traceparent=trace, tracestate="rojo=1,congo=2")
    assert (answer.status_code, answer.content) == (204, b"")
    [envelope] = broker.produced
    assert envelope.value == PATIENT
    assert dict(envelope.headers)["ce_traceparent"] == f"00-{'a' * 32}-{'b' * 16}-01".encode()
    assert dict(envelope.headers)["ce_tracestate"] == b"rojo=1,congo=2"
    event = unpack(Position("careloom.events", 0, 0), envelope.key, envelope.headers, 0)
    assert (event.traceparent, event.tracestate) == (trace, "rojo=1,congo=2")
    assert (event.source, event.resource_type, event.resource_id, event.version_id) == (
        "hospital",
        "Patient",
        "p1",
        "3",
    )


@pytest.mark.parametrize("header", ["nonsense", "00-" + "A" * 32 + "-" + "b" * 16 + "-01", "x" * 5000])
def test_where_the_sender_has_no_trace_context_or_a_malformed_one_the_event_makes_one(
    header, make_gateway, nowhere, broker
) -> None:
    gateway = make_gateway(ledger=nowhere)
    assert gateway.send(PATIENT, traceparent=header, tracestate="rojo=1").status_code == 204
    assert gateway.send(PATIENT).status_code == 204
    first, again = (dict(envelope.headers) for envelope in broker.produced)
    assert first["ce_traceparent"] == again["ce_traceparent"]
    assert parse(first["ce_traceparent"].decode()) is not None
    assert "ce_tracestate" not in first


def test_a_classic_rest_hook_is_taken_by_put_and_by_delete(make_gateway, nowhere, broker) -> None:
    gateway = make_gateway(ledger=nowhere)
    assert gateway.send(PATIENT, "PUT", "/Patient/p1").status_code == 204
    assert gateway.send(b"", "DELETE", "/Patient/p1", content_type="").status_code == 204
    assert broker.types == ["Patient.written", "Patient.deleted"]
    assert broker.produced[0].key == broker.produced[1].key


def test_gzip_is_taken(make_gateway, nowhere, broker) -> None:
    answer = make_gateway(ledger=nowhere).send(gzip.compress(PATIENT), content_encoding="gzip")
    assert answer.status_code == 204
    assert broker.produced[0].value == PATIENT


@pytest.mark.parametrize("file", [f for folder in FOLDERS for f in files(folder)], ids=lambda file: file.name)
def test_every_notification_file_is_taken_by_a_source_of_its_version(
    file, make_gateway, nowhere, broker, hospital
) -> None:
    version = FOLDERS[file.parent.name]
    gateway = make_gateway(
        {"fhir_version": version, "base_url": "http://example.org/fhir"}, servers={"hospital": hospital}, ledger=nowhere
    )
    content_type = "application/fhir+xml" if file.suffix == ".xml" else "application/fhir+json"
    answer = gateway.send(file.read_bytes(), content_type=content_type)
    if asks_for_a_search(file):  # and this ledger does not answer
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
        return
    assert answer.status_code == 204, answer.text
    if "full-resource" in file.name or "id-only" in file.name or "multi" in file.name:
        assert "Encounter" in {kind.partition(".")[0] for kind in broker.types}
    else:
        assert broker.produced == []


def test_an_empty_notification_is_taken_after_a_search(make_gateway, ledger_engine, broker, hospital) -> None:
    empty = [file for file in files("subscription-r4-backport") if asks_for_a_search(file)]
    if not empty:
        pytest.skip("../shared/data is absent")
    Ledger(ledger_engine).set_reconciled_until("hospital", hospital.now)
    base = {"base_url": "http://example.org/fhir"}
    gateway = make_gateway(base, servers={"hospital": hospital}, ledger=ledger_engine)
    for number, file in enumerate(empty, start=1):
        hospital.write("Encounter", f"e{number}", hospital.now)
        assert gateway.send(file.read_bytes()).status_code == 204
        assert len(broker.produced) == number


@pytest.mark.parametrize("file", [f for folder in FOLDERS for f in files(folder)], ids=lambda file: file.name)
def test_every_notification_file_is_refused_by_a_source_of_another_version(file, make_gateway, nowhere, broker) -> None:
    other = {"R4": "R5", "R4B": "R4", "R5": "R4B"}[FOLDERS[file.parent.name]]
    content_type = "application/fhir+xml" if file.suffix == ".xml" else "application/fhir+json"
    answer = make_gateway({"fhir_version": other}, ledger=nowhere).send(file.read_bytes(), content_type=content_type)
    assert answer.status_code == 422, answer.text
    assert answer.json()["resourceType"] == "OperationOutcome"
    assert broker.produced == []


@pytest.mark.parametrize("file", sorted((DATA / "live-notifications").glob("*.json")), ids=lambda file: file.name)
def test_every_live_delivery_is_taken_as_it_was_sent(file, make_gateway, nowhere, broker, hospital) -> None:
    delivery = json.loads(file.read_text())
    base = {"base_url": "http://localhost:8090/fhir"}
    gateway = make_gateway(base, servers={"hospital": hospital}, ledger=nowhere)
    path = delivery["path"].removeprefix("/classic") if delivery["path"].startswith("/classic") else ""
    answer = gateway.send(
        json.dumps(delivery["body"]).encode(),
        delivery["method"],
        path,
        content_type=delivery["headers"]["content-type"],
    )
    if "-empty-event" in file.name:
        assert answer.status_code == 503
    else:
        assert answer.status_code == 204, answer.text
        assert bool(broker.produced) == ("event" in file.name or "classic" in file.name)


def test_an_id_only_notification_is_read_before_it_is_produced(make_gateway, nowhere, broker, hospital) -> None:
    if not files("subscription-r4-backport"):
        pytest.skip("../shared/data is absent")
    file = DATA / "subscription-r4-backport" / "Bundle-r4-notification-id-only.json"
    focus = json.loads(file.read_text())["entry"][0]["resource"]["parameter"]
    event = next(part for part in focus if part["name"] == "notification-event")["part"]
    kind, id_ = next(p for p in event if p["name"] == "focus")["valueReference"]["reference"].split("/")[-2:]
    hospital.write(kind, id_, hospital.now, status="finished")
    gateway = make_gateway({"base_url": "http://h/fhir"}, servers={"hospital": hospital}, ledger=nowhere)
    assert gateway.send(file.read_bytes()).status_code == 204
    assert broker.types == [f"{kind}.written"]
    assert json.loads(broker.produced[0].value)["status"] == "finished"
    hospital.resources.clear()
    assert gateway.send(file.read_bytes()).status_code == 204
    assert broker.types[1:] == [f"{kind}.deleted"]
    hospital.failure = FhirUnavailable("down", retry_after=17)
    answer = gateway.send(file.read_bytes())
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "17")
    assert len(broker.produced) == 2


def test_without_a_server_to_read_from_only_full_resources_are_taken(make_gateway, nowhere, broker) -> None:
    gateway = make_gateway(ledger=nowhere)
    assert gateway.send(b"", content_type="application/x-www-form-urlencoded").status_code == 422
    assert gateway.send(PATIENT).status_code == 204


def test_an_answer_of_2xx_comes_only_after_the_acknowledgement(make_config, broker, nowhere) -> None:
    async def play() -> None:
        acknowledged = asyncio.Event()
        broker.before_ack = acknowledged.wait
        app = create_app(make_config(), ["Encounter"], producer=broker, servers={}, ledger_engine=nowhere, upkeep=False)
        headers = {"authorization": "Bearer a-token-for-tests", "content-type": "application/fhir+json"}
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway") as client:
            asking = asyncio.create_task(client.post("/fhir/hospital", content=PATIENT, headers=headers))
            for _ in range(50):
                await asyncio.sleep(0)
            assert not asking.done()
            assert broker.produced == []
            acknowledged.set()
            assert (await asking).status_code == 204
        assert len(broker.produced) == 1

    asyncio.run(play())


def test_no_acknowledgement_is_answered_503_with_retry_after(make_gateway, nowhere, broker) -> None:
    broker.failure = BrokerUnavailable("down")
    answer = make_gateway(ledger=nowhere).send(PATIENT)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    assert answer.json()["issue"][0]["code"] == "transient"


def test_a_bundle_is_taken_whole_with_its_own_drafts_left_out(make_gateway, nowhere, broker) -> None:
    own = {"resourceType": "RiskAssessment", "id": "r1", "meta": {"security": [AIAST]}}
    resources = [{"resourceType": "Patient", "id": "p1"}, own, {"resourceType": "Encounter", "id": "e1"}]
    bundle = {"resourceType": "Bundle", "type": "collection", "entry": [{"resource": r} for r in resources]}
    assert make_gateway(ledger=nowhere).send(json.dumps(bundle)).status_code == 204
    assert broker.types == ["Patient.written", "Encounter.written"]


def test_our_own_draft_notified_back_is_taken_and_starts_nothing_but_a_persons_decision_does(
    make_gateway, nowhere, broker
) -> None:
    gateway = make_gateway(ledger=nowhere)
    task = {"resourceType": "Task", "id": "t1", "intent": "order", "meta": {"security": [AIAST]}}
    assert gateway.send(json.dumps({**task, "status": "requested"})).status_code == 204
    assert broker.produced == []
    assert gateway.send(json.dumps({**task, "status": "rejected"})).status_code == 204
    assert broker.types == ["Task.written"]


def test_what_comes_in_leaves_nothing_of_a_patient_in_log_or_metrics(make_gateway, nowhere, caplog) -> None:
    gateway = make_gateway(ledger=nowhere)
    with caplog.at_level(logging.DEBUG):
        gateway.send(
            b'{"resourceType":"Patient","id":"canary-id","name":[{"text":"CANARY"}]}', "PUT", "/Patient/canary-id"
        )
        gateway.send(b'{"resourceType":"Patient","id":"canary-id"}', "PUT", "/Patient/another")
    seen = caplog.text + gateway.client.get("/metrics").text
    own_lines = "\n".join(line for line in seen.splitlines() if "httpx" not in line and "_client" not in line)
    assert "canary" not in own_lines.lower()


def test_it_is_ready_as_long_as_kafka_answers_and_live_always(make_gateway, nowhere, broker) -> None:
    client = make_gateway(ledger=nowhere).client
    assert client.get("/ready").json() == {"status": "ready", "kafka": "up", "ledger": "down"}
    broker.connected = False
    assert client.get("/ready").status_code == 503
    assert client.get("/health").status_code == 200
