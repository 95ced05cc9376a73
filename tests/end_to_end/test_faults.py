"""A hundred events through the whole stack while its processes are killed in turn: every one is written, once.

The hospital is HAPI FHIR where it can be had: it gives up a notification after about a minute, and does not keep the
order. The gateway stays down for 90 s in the middle, so that half of the events are never notified at all.
"""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from sqlalchemy import Engine, create_engine, text

from fhir_adapters.event import ClinicalEvent
from pipelines.config import Config, Source, load
from pipelines.ledger import Ledger, engine
from pipelines.ledger.journal import Piece, pieces
from pipelines.stack.environment import Stack
from tests.otlp import Collector

pytestmark = [pytest.mark.end_to_end, pytest.mark.timeout(1500)]

EVENTS = 100
SCENARIO = "in_visit.admission_note"
#: Starts with the same event; its work waits, so that the small model has one question an event.
SPARED = "in_visit.exam_recommendation"
#: Longer than HAPI goes on trying.
GATEWAY_DOWN = 90.0
#: In a patient's name and in a note; it must stand nowhere but at the hospital, in Kafka and in a model's prompt.
CANARY = "Kanarienvogel"
_FINAL = {"written", "stale", "parked", "discarded"}


@dataclass
class House:
    """The stack with what the tests ask it."""

    stack: Stack
    config: Config
    source: Source
    engine: Engine
    http: httpx.Client
    event_ids: list[str] = field(default_factory=list)
    encounters: list[str] = field(default_factory=list)

    def admit(self, number: int, name: str = "Demo", reason: str = "cough and fever for three days") -> None:
        """A patient with one problem is admitted: an event of `in_visit.admission_note`."""
        patient = f"fault-patient-{number:03}"
        resources: list[dict[str, Any]] = [
            {
                "resourceType": "Patient",
                "id": patient,
                "name": [{"family": name}],
                "birthDate": "1970-05-17",
                "gender": "female",
            },
            {
                "resourceType": "Condition",
                "id": f"fault-problem-{number:03}",
                "clinicalStatus": {
                    "coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]
                },
                "code": {"text": "Essential hypertension"},
                "subject": {"reference": f"Patient/{patient}"},
                "recordedDate": "2024-03-01",
            },
            {
                "resourceType": "Encounter",
                "id": f"fault-encounter-{number:03}",
                "status": "in-progress",
                "class": {"system": "http://terminology.hl7.org/CodeSystem/v3-ActCode", "code": "IMP"},
                "subject": {"reference": f"Patient/{patient}"},
                "period": {"start": "2026-11-22T08:00:00+00:00"},
                "reasonCode": [{"text": reason}],
            },
        ]
        for resource in resources:
            answer = self.http.put(f"{resource['resourceType']}/{resource['id']}", json=resource)
            answer.raise_for_status()
        encounter = answer.json()
        self.encounters.append(encounter["id"])
        event = ClinicalEvent(
            self.source.name, "R4", "Encounter", encounter["id"], encounter["meta"]["versionId"], None, None, b""
        )
        self.event_ids.append(event.identity)

    def work(self) -> list[Piece]:
        return [piece for piece in pieces(self.engine, self.event_ids) if piece.scenario == SCENARIO]

    def written(self) -> int:
        return sum(piece.state == "written" for piece in self.work())

    def wait_for(self, what: str, done: Any, seconds: float) -> None:
        """Wait, showing the progress; fails with what stands where."""
        began = time.monotonic()
        shown = 0.0
        while not done():
            waited = time.monotonic() - began
            if waited - shown > 10:
                shown = waited
                print(f"  {waited:4.0f} s until {what}: {dict(Counter(piece.state.value for piece in self.work()))}")
            assert waited < seconds, f"{what} did not come to be; {Counter((p.state, p.error) for p in self.work())}"
            time.sleep(1)


@pytest.fixture(scope="module")
def house(stack: Stack) -> Iterator[House]:
    config = load(stack.config)
    source = config.sources[-1]
    headers = {"content-type": "application/fhir+json", "cache-control": "no-cache"}
    if source.server_token:
        headers["authorization"] = f"Bearer {source.server_token.get_secret_value()}"
    database = engine(config.ledger.url.get_secret_value())
    Ledger(database).switch_off("scenario", SPARED, by="the test", why="one question an event is enough here")
    with httpx.Client(base_url=f"{source.base_url}/", headers=headers, timeout=60) as http:
        yield House(stack, config, source, database, http)
    database.dispose()


@pytest.fixture(scope="module")
def survived(house: House) -> House:
    """A hundred and one events have gone through all the faults."""
    house.admit(0, name=CANARY, reason=f"cough; the neighbour {CANARY} calls it a cold")
    house.wait_for("the first draft", lambda: house.written() == 1, 300)
    kill_in_the_middle(house)
    house.wait_for(
        "all drafts", lambda: len(work := house.work()) == EVENTS + 1 and all(p.state in _FINAL for p in work), 600
    )
    return house


def kill_in_the_middle(house: House) -> None:
    """Admit a hundred patients; kill -9 everything in turn meanwhile; the gateway is away for 90 s in the middle."""
    stack = house.stack
    for number in range(1, EVENTS // 2 + 1):
        house.admit(number)
    stack.kill("gateway")
    stack.wait_healthy("gateway")
    stack.take_down("gateway")
    back = threading.Timer(GATEWAY_DOWN, stack.bring_back, ["gateway"])
    back.start()
    try:
        for number in range(EVENTS // 2 + 1, EVENTS + 1):
            house.admit(number)
        model = "vllm" if "vllm" in stack.programs else "stand-in"
        for victim in ("dispatcher", "worker", "scheduler", model):
            time.sleep(4)
            kill(stack, victim)
    finally:
        back.join()
    stack.wait_healthy()


def kill(stack: Stack, victim: str) -> None:
    """kill -9 one of the stack's programs, or one process of Airflow's that is running a task."""
    if victim == "worker":
        end = time.monotonic() + 60
        while not (running := [pid for pid in stack.pids("scheduler")[1:] if runs_a_task(pid)]):
            assert time.monotonic() < end, "no task came to run, so that none could be killed"
            time.sleep(0.2)
        stack.kill("scheduler", running[-1])
    else:
        stack.kill(victim)
    print(f"  killed {victim}")


def runs_a_task(pid: int) -> bool:
    """Whether this process of the scheduler's is a worker with a task: they write the task's id into their name."""
    try:
        return re.search(r"airflow worker -- [0-9a-f]{8}-", " ".join(psutil.Process(pid).cmdline())) is not None
    except psutil.Error:
        return False


def test_every_event_is_written_once_though_everything_was_killed_in_turn(survived: House) -> None:
    work = survived.work()
    assert Counter(piece.state for piece in work) == {"written": EVENTS + 1}
    compositions = drafts_of(survived, "Composition")
    assert len(compositions) == EVENTS + 1
    assert {one["encounter"]["reference"].split("/")[-1] for one in compositions} == set(survived.encounters)
    identities = [one["identifier"]["value"] for one in compositions]
    assert len(set(identities)) == len(identities)


def drafts_of(house: House, resource_type: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    url: str | None = f"{resource_type}?_security=AIAST&_count=200"
    while url:
        page = house.http.get(url).json()
        found += [entry["resource"] for entry in page.get("entry", [])]
        url = next((link["url"] for link in page.get("link", []) if link["relation"] == "next"), None)
    return found


def test_nothing_is_unaccounted_for_afterwards(survived: House) -> None:
    account = Ledger(survived.engine).account()
    assert account.unaccounted == 0
    assert account.work.get("parked", 0) == 0  # type: ignore[call-overload]


def test_the_canary_is_in_no_table_of_airflows_database(survived: House) -> None:
    database = create_engine(survived.stack.kept.database("airflow", "psycopg"))
    hits = {}
    with database.connect() as connection:
        tables = connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars().all()
        assert len(tables) > 40
        for table in tables:
            found = text(f'SELECT count(*) FROM "{table}" AS t WHERE t::text ILIKE :name OR t::text ILIKE :hex')
            values = {"name": f"%{CANARY}%", "hex": f"%{CANARY.encode().hex()}%"}
            if count := connection.execute(found, values).scalar():
                hits[table] = count
        dag_ids = connection.execute(text("SELECT dag_id FROM dag")).scalars().all()
    database.dispose()
    assert hits == {}
    assert "in_visit.admission_note" in dag_ids


def test_the_canary_is_in_no_log_and_no_file_name(survived: House) -> None:
    state = survived.stack.state_dir
    logs = [
        file for folder in (state / "logs", state / "airflow" / "logs") for file in folder.rglob("*") if file.is_file()
    ]
    assert len(logs) > 10
    assert [file.name for file in logs if CANARY.lower() in file.read_text("utf-8", "replace").lower()] == []
    assert [str(file) for file in Path(state).rglob("*") if CANARY.lower() in str(file).lower()] == []


def test_the_canary_is_on_no_metrics_page(survived: House) -> None:
    config = survived.config
    pages = {
        "gateway": f"{config.gateway.url}/metrics",
        "dispatcher": f"http://127.0.0.1:{config.dispatcher.metrics_port}/metrics",
        "exporter": f"http://127.0.0.1:{config.exporter.port}/metrics",
        "model": config.model.url.removesuffix("/v1") + "/metrics",
    }
    for name, url in pages.items():
        page = httpx.get(url, timeout=30)
        assert page.status_code == 200, name
        assert len(page.text) > 200, name
        assert CANARY.lower() not in page.text.lower(), name


def test_the_canary_is_on_no_page_that_prometheus_scrapes_and_in_no_label_that_it_keeps(survived: House) -> None:
    if survived.stack.monitor.part is None:
        pytest.skip(survived.stack.monitor.why)
    api = f"{survived.stack.kept.url('prometheus')}/api/v1"
    targets = httpx.get(f"{api}/targets", timeout=30).json()["data"]["activeTargets"]
    assert {"gateway", "dispatcher", "exporter", "prometheus"} <= {target["labels"]["job"] for target in targets}
    for target in targets:
        assert CANARY.lower() not in httpx.get(target["scrapeUrl"], timeout=30).text.lower(), target["labels"]["job"]
    names = httpx.get(f"{api}/labels", timeout=30).json()["data"]
    assert {"scenario", "source", "error_class"} <= set(names)
    for name in names:
        assert CANARY.lower() not in httpx.get(f"{api}/label/{name}/values", timeout=30).text.lower(), name


def test_the_spans_of_an_event_are_of_one_trace_through_all_processes(survived: House, collector: Collector) -> None:
    trace = survived.event_ids[0][:32]  # the sender has none: the event's identity makes one

    def found() -> dict[str, set[str]]:
        names: dict[str, set[str]] = {}
        for process, span in collector.of_processes():
            if span.trace_id.hex() == trace:
                names.setdefault(process, set()).add(span.name.split()[0])
        return names

    end = time.monotonic() + 30  # each process sends what it has every few seconds
    wanted = {
        "careloom-gateway": {"intake", "produce"},
        "careloom-dispatcher": {"match", "dispatch"},
        "careloom-task": {"carry", "payload", "record", "rules", "model", "guards", "write"},
    }
    while not all(spans <= found().get(process, set()) for process, spans in wanted.items()):
        assert time.monotonic() < end, f"of the event's trace there is only {found()}"
        time.sleep(1)


def test_the_canary_is_in_no_span(survived: House, collector: Collector) -> None:
    assert len(collector.spans) > 10 * EVENTS
    told = b"".join(collector.raw).lower()
    assert CANARY.lower().encode() not in told
    assert b"fault-patient-" not in told, "nor is a patient's id"


def test_the_metrics_agree_with_the_ledger(survived: House) -> None:
    url = f"http://127.0.0.1:{survived.config.exporter.port}/metrics"

    def finished() -> float:
        lines = httpx.get(url, timeout=30).text.splitlines()
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in lines
            if line.startswith("careloom_work_finished_total{") and 'scenario="in_visit.admission_note"' in line
        )

    survived.wait_for("every draft is on the exporter's page", lambda: finished() == EVENTS + 1, 30)


def test_prometheus_scrapes_every_process_and_no_rule_is_broken(survived: House) -> None:
    if survived.stack.monitor.part is None:
        pytest.skip(survived.stack.monitor.why)
    server = survived.stack.kept.url("prometheus")
    wanted = {"gateway", "dispatcher", "exporter"} | ({"vllm"} if "vllm" in survived.stack.programs else set())

    def scraped() -> set[str]:
        result = httpx.get(f"{server}/api/v1/query", params={"query": "up == 1"}, timeout=30).json()["data"]["result"]
        return {sample["metric"]["job"] for sample in result}

    survived.wait_for("every process is scraped", lambda: wanted <= scraped(), 60)
    groups = httpx.get(f"{server}/api/v1/rules", timeout=30).json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 10
    assert [rule["name"] for rule in rules if rule["health"] == "err"] == []
