"""A stand-in for Airflow's REST API, a real broker, and events to send through it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from sqlalchemy import Engine
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from fhir_adapters.event import ClinicalEvent
from pipelines.config import Airflow, Config
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.kafka.envelope import pack
from pipelines.ledger import EventRow, Incoming, Inference, Ledger, Match, Position, Written
from pipelines.stack import kafka, settings
from plugins import manager
from tests.dispatcher.parts import NOTE

PASSWORD = "a-password-for-tests"
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class FakeAirflow:
    """The dispatcher's part of Airflow's API over real HTTP; `test_airflow_api` holds it and Airflow to one contract.

    Attributes:
        paused: dag_id -> whether it is paused; what is not in here is not there.
        runs: (dag_id, run_id) -> state.
        conf: (dag_id, run_id) -> what the run was asked for with.
        status: answered instead of the truth, while it is set.
        answers_lost: the next so many POSTs are done, and answered with 500.
        logins: tokens given out.
    """

    def __init__(self) -> None:
        self.paused: dict[str, bool] = {NOTE: False}
        self.import_errors: set[str] = set()
        self.runs: dict[tuple[str, str], str] = {}
        self.conf: dict[tuple[str, str], Any] = {}
        self.status: int | None = None
        self.answers_lost = 0
        self.logins = 0
        self.tokens: set[str] = set()  # as in Airflow, a further login ends none that was given out before
        self.url = ""

    @property
    def config(self) -> Airflow:
        return Airflow.model_validate({"url": self.url, "password": PASSWORD})

    def work(self, ledger: Ledger) -> int:
        """Do what the tasks of all queued runs would do; returns how many drafts were written."""
        written = 0
        for key in [key for key, state in self.runs.items() if state == "queued"]:
            for item in ledger.claim(key[1], 60):
                ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written(("Task/1",), 1, 0))
                written += 1
            self.runs[key] = "success"
        return written

    # --- the API ------------------------------------------------------------------------------------------------------

    async def login(self, request: Request) -> Response:
        body = await request.json()
        if body != {"username": "admin", "password": PASSWORD}:
            return JSONResponse({"detail": "Invalid credentials"}, 401)
        self.logins += 1
        token = f"token-{self.logins}"
        self.tokens.add(token)
        return JSONResponse({"access_token": token}, 201)

    async def trigger(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        dag_id, body = request.path_params["dag_id"], await request.json()
        if dag_id not in self.paused:
            return JSONResponse({"detail": f"Dag with dag_id: '{dag_id}' not found"}, 404)
        if dag_id in self.import_errors:
            return JSONResponse({"detail": "has import errors"}, 400)
        if "logical_date" not in body or not set(body) <= {"logical_date", "dag_run_id", "conf"}:
            return JSONResponse({"detail": "not a run"}, 422)
        key = dag_id, body["dag_run_id"]
        if key in self.runs:
            return JSONResponse({"detail": "Unique constraint violation"}, 409)
        self.runs[key] = "queued"
        self.conf[key] = body["conf"]
        if self.answers_lost:
            self.answers_lost -= 1
            return JSONResponse({"detail": "lost"}, 500)
        return JSONResponse({"dag_run_id": key[1], "dag_id": dag_id, "state": "queued"})

    async def run(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        key = request.path_params["dag_id"], request.path_params["run_id"]
        if key not in self.runs:
            return JSONResponse({"detail": "not found"}, 404)
        return JSONResponse({"dag_run_id": key[1], "dag_id": key[0], "state": self.runs[key]})

    async def dags(self, request: Request) -> Response:
        if refusal := self._refusal(request):
            return refusal
        found = sorted(self.paused) if request.query_params["tags"] == "careloom" else []
        offset, limit = int(request.query_params["offset"]), min(100, int(request.query_params["limit"]))
        page = [
            {"dag_id": i, "is_paused": self.paused[i], "has_import_errors": i in self.import_errors}
            for i in found[offset : offset + limit]
        ]
        return JSONResponse({"dags": page, "total_entries": len(found)})

    def _refusal(self, request: Request) -> Response | None:
        if self.status is not None:
            return JSONResponse({"detail": "told to"}, self.status)
        if request.headers.get("authorization", "").removeprefix("Bearer ") not in self.tokens:
            return JSONResponse({"detail": "Invalid JWT"}, 401)
        return None

    def app(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/auth/token", self.login, methods=["POST"]),
                Route("/api/v2/dags", self.dags),
                Route("/api/v2/dags/{dag_id}/dagRuns", self.trigger, methods=["POST"]),
                Route("/api/v2/dags/{dag_id}/dagRuns/{run_id}", self.run),
            ]
        )


@pytest.fixture
def fake_airflow() -> Iterator[FakeAirflow]:
    fake = FakeAirflow()
    listening = socket.create_server(("127.0.0.1", 0))
    fake.url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    server = uvicorn.Server(uvicorn.Config(fake.app(), log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield fake
    server.should_exit = True
    thread.join()
    listening.close()


@pytest.fixture
def ledger(ledger_engine: Engine) -> Ledger:
    """A ledger whose backoffs last no time."""
    return Ledger(ledger_engine, max_attempts=3, backoff=1e-9, backoff_cap=1e-9)


@pytest.fixture
def airflow(fake_airflow: FakeAirflow) -> Iterator[AirflowApi]:
    """A client of the fake; asks for the DAGs anew each time."""
    made = AirflowApi(fake_airflow.config, keep_dags=0.0)
    yield made
    made.close()


@pytest.fixture
def fill(ledger: Ledger) -> Callable[..., None]:
    """Puts rows into the ledger: `fill(5)`, each of a patient of its own."""
    offset = iter(range(100_000))

    def fill_(count: int, scenario: str = NOTE) -> None:
        batch = []
        for o in (next(offset) for _ in range(count)):
            position = Position("t", 0, o)
            event = EventRow(f"e{o}", "hospital", "R4", "Encounter", f"e{o}", "1", None, "written", f"p{o}", position,
                             LONG_AGO, LONG_AGO)  # fmt: skip
            batch.append(Incoming(position, event, (Match(scenario, "1", scenario.split(".")[0]),)))
        ledger.record(batch)

    return fill_


@pytest.fixture(scope="session")
def bootstrap(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Apache Kafka, one node."""
    if why := kafka.missing():
        pytest.skip(why)
    if kafka.find_jars() is None:
        pytest.skip("no Kafka jars here (../shared/kafka, KAFKA_HOME)")
    folder = tmp_path_factory.mktemp("broker")
    part = kafka.ApacheKafka(settings.keep(folder, usual_ports=False))
    part.prepare()
    [program] = part.programs()
    with (folder / "broker.log").open("ab") as log:
        process = subprocess.Popen(program.argv, stdout=log, stderr=log)
    try:
        assert program.probe is not None
        for _ in range(300):
            if program.probe.ask() is None:
                break
            time.sleep(0.1)
        yield part.bootstrap
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()


@pytest.fixture
def config(bootstrap: str, ledger_url: str, fake_airflow: FakeAirflow, tmp_path: Path) -> Config:
    """A configuration of the test's own topic, group, ledger and Airflow."""
    topic = f"events-{uuid.uuid4().hex[:8]}"
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    return Config.model_validate(
        {
            "state_dir": tmp_path,
            "patient_salt": "salt",
            "sources": [{"name": "hospital", "fhir_version": "R4", "token": "t"}],
            "ledger": {"url": ledger_url},
            "airflow": {"url": fake_airflow.url, "password": PASSWORD},
            "model": {"name": "m", "version": "1"},
            # one scenario, or the counts would grow with the catalogue
            "plugins": {"disabled_scenarios": [id_ for id_ in manager.load().scenarios if id_ != NOTE]},
            "kafka": {"bootstrap": bootstrap, "topic": topic, "group": topic, "partitions": 3},
            "dispatcher": {
                "metrics_port": port,
                "reap_every": 0.2,
                "backoff": 0.05,
                "backoff_cap": 0.2,
                "batch_size": 5,
            },
        }
    )


@pytest.fixture
def send(config: Config) -> Iterator[Callable[..., None]]:
    """Sends finished Encounters: `send(10)`, `send(10, first=5)`; each is one event of one of seven patients."""
    from kafka import KafkaProducer

    from pipelines.kafka.topics import ensure_topic

    ensure_topic(config)
    producer = KafkaProducer(bootstrap_servers=config.kafka.bootstrap, acks="all")

    def send_(count: int, *, first: int = 0, raw: bytes | None = None) -> None:
        for number in range(first, first + count):
            body = {"resourceType": "Encounter", "id": f"e{number}", "status": "finished", "class": {"code": "IMP"}}
            event = ClinicalEvent(
                "hospital",
                "R4",
                "Encounter",
                f"e{number}",
                "1",
                None,
                f"Patient/{number % 7}",
                json.dumps(body).encode(),
            )
            envelope = pack(event, salt="salt", received_at=datetime.now(UTC))
            producer.send(
                config.kafka.topic,
                value=envelope.value if raw is None else raw,
                key=envelope.key,
                headers=envelope.headers,
            )
        producer.flush(timeout=20)

    yield send_
    producer.close()


def until(true: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait until something holds; fails after a time that says that it never will."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it never came to hold"
        time.sleep(0.02)


@pytest.fixture(name="until")
def until_() -> Callable[..., None]:
    return until
