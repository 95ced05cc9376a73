"""The built-in scenarios, the stand-in model over HTTP and a real FHIR server: everything but Kafka and Airflow."""

from __future__ import annotations

import asyncio
import socket
import threading
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
import uvicorn
from pydantic import SecretStr

from fhir_adapters.event import ClinicalEvent
from fhir_adapters.fhir_client import FhirClient
from pipelines.config import Model, Source
from pipelines.kafka.envelope import pack, unpack
from pipelines.ledger import Incoming, Match, Position
from pipelines.ledger.replaying import Wanted
from pipelines.models.fleet import Fleet
from pipelines.runner import carry as runner
from pipelines.runner.batch import Summary
from pipelines.runner.sources import Sources
from pipelines.stack import processes, stand_in
from pipelines.stack.fhir import Hospital
from pipelines.stack.settings import Kept, keep
from pipelines.stack.supervisor import Supervisor
from plugins.manager import load

pytestmark = pytest.mark.stack

PATIENT = {"resourceType": "Patient", "id": "ada", "gender": "female", "birthDate": "1960-05-05"}
ALLERGY = {
    "resourceType": "AllergyIntolerance",
    "id": "nuts",
    "patient": {"reference": "Patient/ada"},
    "code": {"text": "Nuts"},
}
APPOINTMENT = {
    "resourceType": "Appointment",
    "id": "visit",
    "status": "booked",
    "description": "chest pain with sweating, radiating to the left arm",
    "participant": [{"actor": {"reference": "Patient/ada"}, "status": "accepted"}],
}


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kept]:
    pytest.importorskip("sekmet", reason="the extra `stack` (sekmet-fhir) is absent")
    folder = tmp_path_factory.mktemp("hospital")
    kept = keep(folder / "state", usual_ports=False)
    part, stack_id = Hospital(kept), uuid.uuid4().hex
    supervisor = Supervisor(stack_id, folder / "logs")
    try:
        part.prepare()
        for program in part.programs():
            supervisor.start(program)
        yield kept
    finally:
        supervisor.stop()
        processes.end(stack_id, grace=0)


@pytest.fixture(scope="module")
def model_url() -> Iterator[str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(stand_in.create_app(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(timeout=10)
    listener.close()


@pytest.fixture
def real(house: Any, hospital: Kept, model_url: str) -> Any:
    """The house with the real server and the stand-in in place of its fakes."""
    part = Hospital(hospital)
    source = Source(
        name="ward",
        fhir_version="R4",
        base_url=part.base_url,
        token=SecretStr("t"),
        server_token=SecretStr(hospital.secrets["hospital-server-token"]),
    )
    model = Model(url=model_url, name=stand_in.NAME, version="0", stand_in=True)
    house.config = house.config.model_copy(update={"sources": (source,), "model": model})
    return house


def on_server(house: Any, use: Any) -> Any:
    async def go() -> Any:
        source = house.config.sources[0]
        async with FhirClient(source.base_url, token=source.server_token.get_secret_value()) as client:
            return await use(client)

    return asyncio.run(go())


def put(house: Any, *resources: dict[str, Any]) -> list[bytes]:
    async def use(client: FhirClient) -> list[bytes]:
        for resource in resources:
            await client.update(resource)
        return [(await client.read(r["resourceType"], r["id"])).body for r in resources]

    bodies: list[bytes] = on_server(house, use)
    return bodies


def enter(house: Any, body: bytes, scenario: str) -> None:
    resource = orjson.loads(body)
    now = datetime.now(UTC)
    kind, meta = resource["resourceType"], resource["meta"]
    event = ClinicalEvent(
        "ward", "R4", kind, resource["id"], meta["versionId"], meta["lastUpdated"], "Patient/ada", body
    )
    envelope = pack(event, salt="s", received_at=now)
    position = Position("careloom.events", 0, house.entered)
    house.entered += 1
    row = unpack(position, envelope.key, envelope.headers, int(now.timestamp() * 1000))
    house.payloads.bytes[row.event_id] = body
    house.ledger.record([Incoming(position, row, [Match(scenario, "1.0.0", scenario.split(".")[0])])])


def whole_run(house: Any, scenario: str, *, times: int = 1) -> list[Summary]:
    run = house.ledger.take_run(scenario, 100)

    async def go() -> list[Summary]:
        sources, fleet = Sources(house.config), Fleet(house.config.registry)
        try:
            return [
                await runner.carry_rows(
                    house.config,
                    house.ledger,
                    run.run_id,
                    loaded=load(),
                    payloads=house.payloads,
                    sources=sources,
                    fleet=fleet,
                )
                for _ in range(times)
            ]
        finally:
            await sources.aclose()
            await fleet.close()

    return asyncio.run(go())


def found(house: Any, kind: str) -> list[dict[str, Any]]:
    async def use(client: FhirClient) -> list[dict[str, Any]]:
        return [reading.resource for reading in (await client.search(kind)).resources]

    resources: list[dict[str, Any]] = on_server(house, use)
    return resources


def test_triage_writes_red_flags_and_its_drafts_with_two_provenances_and_an_honest_device(real: Any) -> None:
    put(real, PATIENT, ALLERGY)
    (body,) = put(real, APPOINTMENT)
    enter(real, body, "pre_visit.triage")
    written, again = whole_run(real, "pre_visit.triage", times=2)
    assert written.line == f"{written.run_id}: 1 written"
    assert again.outcomes == {}
    (row,) = real.rows()
    kinds = sorted(reference.split("/")[0] for reference in row.written)
    assert kinds == ["Flag", "RiskAssessment", "ServiceRequest", "Task"]
    assert (row.created, row.recognised) == (4, 0)
    (risk,) = found(real, "RiskAssessment")
    devices = {f"Device/{device['id']}": device for device in found(real, "Device")}
    assert "STAND-IN" in devices[risk["performer"]["reference"]]["deviceName"][0]["name"]
    (flag,) = found(real, "Flag")
    assert devices[flag["author"]["reference"]]["type"]["text"] == "Rules engine"
    provenances = found(real, "Provenance")
    assert {target["reference"] for p in provenances for target in p["target"]} == {*row.written, row.approval}
    [approval] = [task for task in found(real, "Task") if f"Task/{task['id']}" == row.approval]
    assert approval["requester"] == risk["performer"]
    assert {one["valueReference"]["reference"].split("/")[0] for one in approval["input"]} == {
        "RiskAssessment",
        "ServiceRequest",
    }
    assert all(p["entity"][0]["what"]["reference"].startswith("Appointment/visit") for p in provenances)


def test_the_same_event_in_a_ledger_that_forgot_it_writes_nothing_new(real: Any) -> None:
    body = on_server(real, lambda client: client.read("Appointment", "visit")).body
    kinds = ("Flag", "Task", "RiskAssessment", "ServiceRequest", "Provenance")
    before = {kind: len(found(real, kind)) for kind in kinds}
    enter(real, body, "pre_visit.triage")
    whole_run(real, "pre_visit.triage")
    (row,) = real.rows()
    assert (row.state, row.created, row.recognised) == ("written", 0, 4)
    assert {kind: len(found(real, kind)) for kind in before} == before


@pytest.mark.parametrize(
    ("scenario", "encounter"),
    [
        ("in_visit.admission_note", {"status": "in-progress"}),
        ("post_visit.follow_up", {"status": "finished", "period": {"start": "2026-01-01", "end": "2026-01-05"}}),
    ],
)
def test_the_other_stages_write_their_drafts_too(real: Any, scenario: str, encounter: dict[str, Any]) -> None:
    put(real, PATIENT)
    stay = {
        "resourceType": "Encounter",
        "id": scenario.replace("_", "-").replace(".", "-"),
        "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
        "subject": {"reference": "Patient/ada"},
        **encounter,
    }
    (body,) = put(real, stay)
    enter(real, body, scenario)
    whole_run(real, scenario)
    (row,) = real.rows()
    assert (row.state, row.error) == ("written", None)
    assert row.created > 0


def test_a_replay_recognises_what_was_written_and_asks_no_model(real: Any) -> None:
    put(real, {**PATIENT, "id": "ida"})
    (body,) = put(real, {**APPOINTMENT, "id": "again"})
    enter(real, body, "pre_visit.triage")
    whole_run(real, "pre_visit.triage")
    (first,) = real.rows()
    kinds = ("Flag", "Task", "RiskAssessment", "ServiceRequest", "Provenance", "Device")
    before = {kind: len(found(real, kind)) for kind in kinds}
    number = real.ledger.begin_replay(by="wu", why="a drill", chosen={})
    wanted = Wanted(first.event_id, Match("pre_visit.triage", "1.0.0", "pre_visit"))
    assert real.ledger.add_replays(number, [wanted]).rows == 1
    whole_run(real, "pre_visit.triage")
    _, again = real.rows()
    assert (again.state, again.replay, again.created, again.model) == ("written", number, 0, None)
    assert again.recognised > 0
    assert set(again.written) <= set(first.written)
    assert {kind: len(found(real, kind)) for kind in kinds} == before


def test_a_replay_after_the_server_lost_its_provenance_writes_that_and_nothing_twice(real: Any) -> None:
    put(real, {**PATIENT, "id": "ida"})
    (body,) = put(real, {**APPOINTMENT, "id": "lost"})
    enter(real, body, "pre_visit.triage")
    whole_run(real, "pre_visit.triage")
    (first,) = real.rows()
    drafts = ("Flag", "Task", "RiskAssessment", "ServiceRequest")
    before = {kind: len(found(real, kind)) for kind in drafts}

    source = real.config.sources[0]
    for provenance in found(real, "Provenance"):
        if any(tag["code"].startswith(first.event_id) for tag in provenance["meta"].get("tag", ())):
            answer = httpx.delete(
                f"{source.base_url}/Provenance/{provenance['id']}",
                headers={"Authorization": f"Bearer {source.server_token.get_secret_value()}"},
            )
            assert answer.is_success
    number = real.ledger.begin_replay(by="wu", why="a drill", chosen={})
    real.ledger.add_replays(number, [Wanted(first.event_id, Match("pre_visit.triage", "1.0.0", "pre_visit"))])
    whole_run(real, "pre_visit.triage")
    _, again = real.rows()
    assert (again.state, again.created, again.recognised) == ("written", 0, first.created)
    assert again.model is not None
    assert {kind: len(found(real, kind)) for kind in drafts} == before
