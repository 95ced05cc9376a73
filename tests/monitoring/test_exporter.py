"""The exporter as a process: folds, serves, survives its ledger, and ends when it is told to."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, text

from fhir_adapters.event import ClinicalEvent
from pipelines.config import ENVIRONMENT_VARIABLE
from pipelines.errors import ErrorClass, StepFailed
from pipelines.kafka.envelope import pack, unpack
from pipelines.ledger import Incoming, Inference, Ledger, Match, Position, Written

CANARY = "Zanzibar-Canary-Xu"

CONFIG = """
state_dir = "."
patient_salt = "salt"
sources = [{{ name = "ward", fhir_version = "R4", base_url = "http://127.0.0.1:1", token = "secret-token" }}]
ledger = {{ url = "{url}" }}
airflow = {{ password = "secret-password" }}
model = {{ name = "smollm2", version = "1" }}
exporter = {{ port = {port}, fold_every = 0.1 }}
"""


@pytest.fixture
def port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def start(tmp_path: Path, port: int) -> Iterator[Callable[[str], subprocess.Popen[bytes]]]:
    """Starts the exporter on a ledger's URL; whatever still lives afterwards is killed."""
    started: list[subprocess.Popen[bytes]] = []

    def begin(url: str) -> subprocess.Popen[bytes]:
        file = tmp_path / "careloom.toml"
        log = (tmp_path / "log").open("ab")
        file.write_text(CONFIG.format(url=url, port=port), encoding="utf-8")
        process = subprocess.Popen(
            [sys.executable, "-m", "monitoring.exporter"],
            env={**os.environ, ENVIRONMENT_VARIABLE: str(file)},
            stderr=log,
        )
        log.close()
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


def get(port: int, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, ""


def until(port: int, line: str, process: subprocess.Popen[bytes], *, seconds: float = 60.0) -> str:
    """The first /metrics page that holds the line."""
    page = ""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the exporter ended"
        try:
            page = get(port, "/metrics")[1]
        except OSError:
            time.sleep(0.1)
            continue
        if line in page.splitlines():
            return page
        time.sleep(0.1)
    raise AssertionError(f"{line} did not show; the last page:\n{page}")


def one_event_all_the_way(ledger: Ledger) -> None:
    """A patient's event, with a canary wherever a careless program could pick it up, written on its second try."""
    event = ClinicalEvent(
        "ward", "R4", "Encounter", CANARY, "1", None, f"Patient/{CANARY}", f'{{"note":"{CANARY}"}}'.encode()
    )
    now = datetime.now(UTC)
    envelope = pack(event, salt="salt", received_at=now)
    position = Position("careloom.events", 0, 0)
    row = unpack(position, envelope.key, envelope.headers, int(now.timestamp() * 1000))
    ledger.record([Incoming(position, row, [Match("pre_visit.triage", "1", "pre_visit")])])
    for fails in (True, False):
        while (run := ledger.take_run("pre_visit.triage", 10)) is None:
            pass
        [item] = ledger.claim(run.run_id, 60)
        if fails:
            ledger.failed(item, StepFailed(ErrorClass.MODEL_TIMEOUT, "no answer"))
    inference = Inference({"note": CANARY}, {"answered_at": datetime.now(UTC)}, model="smollm2", findings=2)
    ledger.written(ledger.inferred(item, inference), Written([f"Composition/{CANARY}"], created=1, recognised=0))
    ledger.switch_off("scenario", "in_visit.admission_note", by=CANARY, why=CANARY)


def test_it_shows_what_the_ledger_says_and_nothing_of_the_patient(
    ledger_url: str,
    ledger_engine: Engine,
    port: int,
    start: Callable[[str], subprocess.Popen[bytes]],
    tmp_path: Path,
) -> None:
    one_event_all_the_way(Ledger(ledger_engine, backoff=0.01))
    with ledger_engine.connect() as connection:
        assert CANARY in str(connection.execute(text("SELECT resource_id FROM events")).scalar_one())
    exporter = start(ledger_url)
    finished = (
        'careloom_work_finished_total{model="smollm2",scenario="pre_visit.triage",stage="pre_visit",state="written"}'
    )
    page = until(port, f"{finished} 1.0", exporter)
    failed = 'error_class="model_timeout",hop="answered",scenario="pre_visit.triage",stage="pre_visit"'
    assert f"careloom_failures_total{{{failed}}} 1.0" in page
    assert "careloom_unaccounted_items 0.0" in page
    assert 'careloom_switched_off{kind="scenario",target="in_visit.admission_note"} 1.0' in page
    assert 'careloom_scenario_deadline_seconds{scenario="pre_visit.triage",stage="pre_visit"}' in page
    assert 'careloom_scenario_needs_info{needs="model:smollm2",scenario="pre_visit.triage"' in page
    assert 'careloom_model_server_info{dependency="model:smollm2",server="127.0.0.1:8000"} 1.0' in page
    for secret in (CANARY, "secret-token", "secret-password", "postgresql"):
        assert secret not in page
    assert get(port, "/health")[0] == 200
    assert json.loads(get(port, "/health")[1])["status"] == "ok"
    assert get(port, "/elsewhere")[0] == 404
    exporter.send_signal(signal.SIGTERM)
    assert exporter.wait(timeout=30) == 0
    log = (tmp_path / "log").read_text()
    assert "Traceback" not in log
    assert CANARY not in log


def test_counters_go_on_where_they_were_after_a_kill(
    ledger_url: str, fill_ledger: Callable[..., None], port: int, start: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    line = 'careloom_event_to_draft_seconds_count{{scenario="pre_visit.triage",stage="pre_visit"}} {}'
    fill_ledger(40)
    first = start(ledger_url)
    until(port, line.format("40.0"), first)
    first.send_signal(signal.SIGKILL)
    first.wait()
    fill_ledger(2)
    until(port, line.format("42.0"), start(ledger_url))


def test_a_ledger_that_is_away_is_said_and_noticed_when_it_is_back(
    postgres_url: object, ledger_url: str, port: int, start: Callable[[str], subprocess.Popen[bytes]]
) -> None:
    away = ledger_url.replace("/ledger_", "/away_ledger_")
    exporter = start(away)
    page = until(port, "careloom_ledger_up 0.0", exporter)
    assert "careloom_work_finished_total{" not in page
    assert get(port, "/health")[0] == 200
    with_database(postgres_url, away)
    until(port, "careloom_ledger_up 1.0", exporter)


def with_database(server: object, url: str) -> None:
    """Make the database that was away, with its schema."""
    from sqlalchemy import create_engine
    from sqlalchemy.engine import URL, make_url

    assert isinstance(server, URL)
    admin = create_engine(server, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {make_url(url).database} TEMPLATE ledger_template"))
    admin.dispose()


def test_a_wrong_configuration_is_said_in_one_line(tmp_path: Path) -> None:
    process = subprocess.run(
        [sys.executable, "-m", "monitoring.exporter"],
        env={**os.environ, ENVIRONMENT_VARIABLE: str(tmp_path / "none.toml")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert process.returncode == 1
    assert "none.toml: not found" in process.stderr
    assert "Traceback" not in process.stderr
