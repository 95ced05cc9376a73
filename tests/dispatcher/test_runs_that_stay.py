"""Runs that stay: rows wait for them, they are told to take no more, looked after and counted."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import Engine, text

from monitoring import metrics
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.reaper import Reaper
from pipelines.dispatcher.standing import Standing
from pipelines.ledger import Inference, Ledger, Written
from pipelines.ledger.staying import Stayer
from tests.dispatcher.parts import NOTE, batches


def stays(ledger: Ledger, airflow: AirflowApi, fake_airflow: Any, fill: Any) -> tuple[Batches, Stayer]:
    """One run has written its only row, and stays; and the batches that decided on it."""
    fill(1)
    made = batches(ledger, airflow)
    made.step()
    [run] = ledger.open_runs()
    fake_airflow.work(ledger)
    stayer = Stayer.new(run.run_id, rank=1, most=2, slots=4, seconds=60)
    assert ledger.stay(stayer, begins=True)
    return made, stayer


def stopped(made: Batches, fake_airflow: Any, why: str) -> None:
    """The scenario may not go on."""
    if why == "paused in Airflow":
        fake_airflow.paused[NOTE] = True
    elif why == "held":
        made._holds.failed(NOTE)
    elif why == "not installed":
        made._installed = frozenset()
    else:
        made._room = type("Full", (), {"lacks": lambda *_: "it is full"})()


def test_rows_wait_for_a_run_that_stays_as_long_as_for_company_and_then_get_another(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made, stayer = stays(ledger, airflow, fake_airflow, fill)
    fill(25)
    made.step()
    assert len(fake_airflow.runs) == 1, "a full batch waits for it as well"
    taken = ledger.take_more(stayer, 10, 60)
    assert taken is not None and len(taken) == 10
    batches(ledger, airflow, linger=1e-6).step()
    assert len(fake_airflow.runs) == 2


@pytest.mark.parametrize("why", ["paused in Airflow", "held", "not installed", "the model has no room"])
def test_a_run_that_stays_is_told_to_take_no_more_when_its_scenario_may_not_go_on(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, why: str
):
    made, stayer = stays(ledger, airflow, fake_airflow, fill)
    made.step()
    assert ledger.stay(stayer), "while all is well it stays"
    stopped(made, fake_airflow, why)
    made.step()
    fill(1)
    assert ledger.take_more(stayer, 10, 60) is None
    assert not ledger.stay(stayer, begins=True)


def test_a_run_that_stays_is_looked_after_when_its_process_says_nothing_any_more(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    _, stayer = stays(ledger, airflow, fake_airflow, fill)
    fill(1)
    assert ledger.take_more(stayer, 10, 60)
    reaper = Reaper(ledger, airflow, Holds(3600, 3600), 1.0, lambda: None, grace=0.0)
    fake_airflow.runs[next(iter(fake_airflow.runs))] = "failed"
    assert reaper.step() == 0
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE runs SET stays_until = now()"))
    assert reaper.step() == 1


def test_a_run_that_stays_is_counted_while_it_does_and_its_rows_when_it_is_closed(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made, stayer = stays(ledger, airflow, fake_airflow, fill)
    made.step()
    assert metrics.STAYING_RUNS.labels(NOTE)._value.get() == 1
    fill(3)
    before = metrics.ROWS_TAKEN.labels(NOTE)._value.get()
    for item in ledger.take_more(stayer, 10, 60) or ():
        ledger.written(ledger.inferred(item, Inference({"drafts": []}, {})), Written((), 0, 0))
    ledger.leave(stayer)
    made.step()
    assert metrics.ROWS_TAKEN.labels(NOTE)._value.get() - before == 3


def test_a_scenario_that_is_to_stand_has_a_run_while_nothing_waits_and_a_new_one_not_before_its_time(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    made = batches(ledger, airflow, standing=Standing([NOTE], every=3600))
    made.step()
    [run] = ledger.open_runs()
    assert (run.size, run.posted, list(fake_airflow.runs)) == (0, True, [(NOTE, run.run_id)])
    made.step()
    assert len(fake_airflow.runs) == 1
    assert ledger.stands(run.run_id, 5) == NOTE
    ledger.withdraw()
    made.step()
    assert ledger.open_runs() == [], "it was closed, and the next one is not due"
    batches(ledger, airflow, standing=Standing([NOTE], every=0)).step()
    assert len(fake_airflow.runs) == 2


def test_nothing_stands_beside_rows_that_wait_they_have_a_run_of_their_own(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    fill(1)
    batches(ledger, airflow, standing=Standing([NOTE])).step()
    [run] = ledger.open_runs()
    assert run.size == 1


@pytest.mark.parametrize("why", ["paused in Airflow", "held", "not installed", "the model has no room"])
def test_nothing_stands_for_a_scenario_that_may_not_go_on(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, why: str
):
    made = batches(ledger, airflow, standing=Standing([NOTE]))
    stopped(made, fake_airflow, why)
    made.step()
    assert ledger.open_runs() == [] and fake_airflow.runs == {}


def test_a_dead_letter_with_rows_behind_it_neither_stops_the_reading_nor_the_standing(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    fill(30)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET patient_key = 'one'"))
        connection.execute(text("UPDATE work SET rules_at = now()"))
        connection.execute(text("UPDATE work SET state = 'parked' WHERE id = (SELECT min(id) FROM work)"))
    made = batches(ledger, airflow, max_waiting=10, standing=Standing([NOTE]))
    made.step()
    assert not made._pressure.too_high, "29 rows wait for a person, and nobody else's events have to"
    assert [run.size for run in ledger.open_runs()] == [0]
