"""Whether deadlines were met is counted once a row, at the moment it is decided, and never taken back."""

from __future__ import annotations

from collections.abc import Callable

from sqlalchemy import Engine, text

from pipelines.ledger.fold import canonical, count_overdue, fold_all

Fill = Callable[..., None]

TRIAGE = {"pre_visit.triage": 60.0}


def counted(engine: Engine) -> dict[str, float]:
    """Outcome -> how many, of pre_visit.triage."""
    found = {}
    with engine.connect() as connection:
        rows = connection.execute(text("SELECT labels, value FROM samples WHERE name = 'careloom_deadlines_total'"))
        for labels, value in rows:
            for outcome in ("met", "missed"):
                if labels == canonical({"scenario": "pre_visit.triage", "stage": "pre_visit", "outcome": outcome}):
                    found[outcome] = value
    return found


def set_all(engine: Engine, assignments: str, where: str = "true") -> None:
    with engine.begin() as connection:
        connection.execute(text(f"UPDATE work SET {assignments} WHERE {where}"))


def age(engine: Engine, seconds: int, where: str = "true") -> None:
    set_all(engine, f"received_at = now() - interval '{seconds} seconds'", where)


def test_written_work_is_counted_by_its_scenarios_deadline(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(10)
    set_all(ledger_engine, "written_at = received_at + interval '60 seconds'", "id % 2 = 0")
    set_all(ledger_engine, "written_at = received_at + interval '60.001 seconds'", "id % 2 = 1")
    fold_all(ledger_engine, 3, deadlines=TRIAGE)
    assert counted(ledger_engine) == {"met": 5, "missed": 5}


def test_unfinished_work_is_missed_once_when_its_deadline_passes(ledger_engine: Engine, fill_ledger: Fill) -> None:
    for state in ("waiting", "dispatched", "running", "inferred", "parked"):
        fill_ledger(2, state=state)
    age(ledger_engine, 50)
    assert count_overdue(ledger_engine, TRIAGE) == 0
    age(ledger_engine, 61)
    assert count_overdue(ledger_engine, TRIAGE, 3) == 10
    assert count_overdue(ledger_engine, TRIAGE, 3) == 0
    assert counted(ledger_engine) == {"missed": 10}


def test_work_that_was_counted_as_late_is_not_counted_again_when_it_is_finished(
    ledger_engine: Engine, fill_ledger: Fill
) -> None:
    fill_ledger(4, state="running")
    age(ledger_engine, 61)
    count_overdue(ledger_engine, TRIAGE)
    set_all(ledger_engine, "state = 'written', written_at = now(), finished_at = now()", "id % 2 = 0")
    set_all(ledger_engine, "state = 'stale', finished_at = now()", "id % 2 = 1")
    fold_all(ledger_engine, deadlines=TRIAGE)
    assert counted(ledger_engine) == {"missed": 4}


def test_work_overtaken_in_time_owes_nothing_and_discarded_work_is_missed(
    ledger_engine: Engine, fill_ledger: Fill
) -> None:
    fill_ledger(3, state="stale")
    fill_ledger(2, state="discarded")
    set_all(ledger_engine, "written_at = NULL, finished_at = received_at + interval '1 second'")
    fold_all(ledger_engine, deadlines=TRIAGE)
    assert counted(ledger_engine) == {"missed": 2}


def test_what_a_person_had_run_again_has_no_deadline(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(3)
    fill_ledger(3, state="waiting")
    set_all(ledger_engine, "replay = 1, received_at = now() - interval '1 day'")
    assert count_overdue(ledger_engine, TRIAGE) == 0
    fold_all(ledger_engine, deadlines=TRIAGE)
    assert counted(ledger_engine) == {}


def test_a_scenario_that_is_not_installed_has_no_deadline(ledger_engine: Engine, fill_ledger: Fill) -> None:
    fill_ledger(3)
    fold_all(ledger_engine, deadlines={"post_visit.follow_up": 1.0})
    assert counted(ledger_engine) == {}
