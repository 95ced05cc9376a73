"""Airflow's API server with the page in it, over a ledger of the test's own; and people who are logged in to it."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from monitoring.airflow_page.genuine import Tokens
from pipelines.ledger import Ledger, engine

_HERE = Path(__file__).parent
PEOPLE = {"ada": "admin", "vera": "viewer", "uma": "user", "pre": "user", "half": "user", "nobody": "viewer"}

_CONFIG = """
state_dir = "."
patient_salt = "s"
[[sources]]
name = "hospital"
fhir_version = "R4"
token = "t"
[ledger]
url = "{ledger}"
[kafka]
bootstrap = "127.0.0.1:9"
[airflow]
password = "p"
[model]
name = "small"
version = "1"
"""


@dataclass(frozen=True)
class Served:
    """An API server that answers."""

    url: str
    log: Path


@pytest.fixture(scope="module")
def page_ledger_url(postgres_url: URL) -> str:
    """The ledger that the API server of these tests reads."""
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE page_ledger TEMPLATE ledger_template"))
    admin.dispose()
    return postgres_url.set(database="page_ledger").render_as_string(hide_password=False)


@pytest.fixture(scope="module")
def served(page_ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("airflow")
    (folder / "careloom.toml").write_text(_CONFIG.format(ledger=page_ledger_url))
    (folder / "passwords.json").write_text(json.dumps({name: f"{name}-secret" for name in PEOPLE}))
    (folder / "airflow.cfg").touch()
    (folder / "none").mkdir()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    settings = {
        "CORE__AUTH_MANAGER": "per_dag_auth.PerDag",
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in PEOPLE.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(folder / "passwords.json"),
        "CORE__PLUGINS_FOLDER": str(folder / "none"),
        "CORE__DAGS_FOLDER": str(folder / "none"),
        "CORE__LOAD_EXAMPLES": "False",
        "API__BASE_URL": f"http://127.0.0.1:{port}",
        "API__SECRET_KEY": "secret",
        "API_AUTH__JWT_SECRET": "another secret, as long as the signature that it is for wants it to be, and more",
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "USAGE_DATA_COLLECTION__ENABLED": "False",
    }
    env = {
        **os.environ,
        **{f"AIRFLOW__{key}": value for key, value in settings.items()},
        "AIRFLOW_HOME": str(folder),
        "CARELOOM_CONFIG": str(folder / "careloom.toml"),
        "PYTHONPATH": str(_HERE),
    }
    log = folder / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, str(_HERE / "serve.py"), str(port)], env=env, stdout=out, stderr=out
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _until_answering(url, process, log)
        yield Served(url, log)
    finally:
        process.terminate()
        process.wait(20)


def _until_answering(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + 240
    while time.monotonic() < end:
        assert process.poll() is None, log.read_text()
        try:
            httpx.get(f"{url}/probe/plugins", timeout=5, trust_env=False)
        except httpx.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError(log.read_text())


@pytest.fixture
def page_engine(page_ledger_url: str) -> Iterator[Engine]:
    """The ledger of the page, emptied."""
    made = engine(page_ledger_url)
    with made.begin() as connection:
        tables = ", ".join(
            connection.execute(text("SELECT tablename FROM pg_tables WHERE schemaname = 'public'")).scalars()
        )
        connection.execute(text(f"TRUNCATE {tables} RESTART IDENTITY"))
    yield made
    made.dispose()


@pytest.fixture
def ledger(page_engine: Engine) -> Ledger:
    """The same; it parks at the first failure."""
    return Ledger(page_engine, max_attempts=1)


@dataclass
class Person:
    """Somebody with a browser, logged in."""

    name: str
    client: httpx.Client

    def get(self, path: str = "/careloom/", **headers: str) -> httpx.Response:
        return self.client.get(path, headers=headers)

    def token(self) -> str:
        """Of this person's forms; whoever may act on nothing has no form, and takes the server's word for a token."""
        found = re.search(r'name="token" value="([^"]+)"', self.get().text)
        return found[1] if found else Tokens("secret").make(self.name)

    def post(self, path: str, fields: dict[str, object], *, token: str | None = None, **headers: str) -> httpx.Response:
        """A form of the page as a browser sends it: with the page's origin, and the token of its forms."""
        token = self.token() if token is None else token
        origin = {"Origin": str(self.client.base_url).rstrip("/")}
        sent = {**origin, **{name.replace("_", "-"): value for name, value in headers.items()}}
        return self.client.post(f"/careloom/{path}", data={"token": token, **fields}, headers=sent)


@pytest.fixture(scope="module")
def logged_in(served: Served) -> Iterator[Callable[[str], Person]]:
    """`logged_in("vera")` is a browser with Airflow's own cookie."""
    people: dict[str, Person] = {}

    def enter(name: str) -> Person:
        if name not in people:
            client = httpx.Client(base_url=served.url, timeout=30, trust_env=False)
            login = {"username": name, "password": f"{name}-secret"}
            answer = client.post("/auth/token", json=login)
            assert answer.status_code == 201, answer.text
            client.cookies.set("_token", answer.json()["access_token"])
            people[name] = Person(name, client)
        return people[name]

    yield enter
    for person in people.values():
        person.client.close()
