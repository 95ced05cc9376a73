"""Airflow's API server with the page in it, over a ledger of the test's own; and people who are logged in to it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from monitoring.airflow_page.genuine import Tokens
from pipelines.errors import ErrorClass, PoisonReason, StepFailed
from pipelines.ledger import EventRow, Incoming, Ledger, Match, Poison, Position, engine
from tests.monitoring.airflow_page.page_parts import CANARY
from tests.monitoring.airflow_page.server import Served, password, serve

PEOPLE = {"ada": "admin", "vera": "viewer", "uma": "user", "pre": "user", "half": "user", "nobody": "viewer"}


@pytest.fixture(scope="session")
def page_ledger_url(postgres_url: URL) -> str:
    """The ledger that the API server of these tests reads."""
    admin = create_engine(postgres_url, isolation_level="AUTOCOMMIT")
    with admin.connect() as connection:
        connection.execute(text("CREATE DATABASE page_ledger TEMPLATE ledger_template"))
    admin.dispose()
    return postgres_url.set(database="page_ledger").render_as_string(hide_password=False)


@pytest.fixture(scope="session")
def served(page_ledger_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serve(tmp_path_factory.mktemp("airflow"), page_ledger_url, PEOPLE) as made:
        yield made


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


@pytest.fixture(scope="session")
def logged_in(served: Served) -> Iterator[Callable[[str], Person]]:
    """`logged_in("vera")` is a browser with Airflow's own cookie."""
    people: dict[str, Person] = {}

    def enter(name: str) -> Person:
        if name not in people:
            client = httpx.Client(base_url=served.url, timeout=30, trust_env=False)
            login = {"username": name, "password": password(name)}
            answer = client.post("/auth/token", json=login)
            assert answer.status_code == 201, answer.text
            client.cookies.set("_token", answer.json()["access_token"])
            people[name] = Person(name, client)
        return people[name]

    yield enter
    for person in people.values():
        person.client.close()


@pytest.fixture
def happens(ledger: Ledger) -> Callable[..., int]:
    """Records one event for a scenario; with an error class it fails for good. Returns its number."""
    offsets = iter(range(1000))

    def happen(scenario: str, patient: str = "p", error_class: ErrorClass | None = None, error: str = "no") -> int:
        offset = next(offsets)
        position = Position("events", 0, offset)
        now = datetime.now(UTC)
        event = EventRow(
            event_id=f"event-{offset}",
            source="hospital",
            fhir_version="R4",
            resource_type="Encounter",
            resource_id=f"{CANARY}-{offset}",
            version_id="1",
            last_updated=now,
            change="written",
            patient_key=f"{CANARY}-{patient}",
            position=position,
            received_at=now,
            durable_at=now,
        )
        ledger.record([Incoming(position, event, (Match(scenario, "1", scenario.partition(".")[0]),))])
        if error_class is None:
            return offset
        run = ledger.take_run(scenario, 1)
        assert run is not None
        [item] = ledger.claim(run.run_id, 60)
        ledger.failed(item, StepFailed(error_class, error))
        return item.id

    return happen


@pytest.fixture
def poison(ledger: Ledger) -> Callable[[int], int]:
    def make(offset: int) -> int:
        when = datetime(2026, 1, 1, tzinfo=UTC)
        ledger.record([Incoming(Position("events", 1, offset), None, poison=Poison(PoisonReason.NOT_JSON, when))])
        return max(row.id for row in ledger.poison())

    return make
