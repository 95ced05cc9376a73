"""Rows into Airflow runs: when, how many rows in one, and how many at a time."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import Engine, text

from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.ledger import Ledger
from tests.dispatcher.parts import batches


def test_the_first_rows_are_taken_at_once(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    fill(3)
    batches(ledger, airflow).step()
    assert [conf["items"] for conf in fake_airflow.conf.values()] == [3]
    assert [run.posted for run in ledger.open_runs()] == [True]
    assert fake_airflow.work(ledger) == 3


def test_while_a_run_is_under_way_rows_wait_for_company(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow)
    fill(1)
    made.step()
    fill(9)
    made.step()
    assert len(fake_airflow.runs) == 1
    fill(1)
    made.step()
    assert sorted(conf["items"] for conf in fake_airflow.conf.values()) == [1, 10]


def test_rows_linger_no_longer_than_they_may(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow, linger=1e-6)
    fill(1)
    made.step()
    fill(1)
    made.step()
    assert len(fake_airflow.runs) == 2


def test_no_more_runs_are_open_than_may_be_and_a_finished_one_makes_room(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made = batches(ledger, airflow, linger=1e-6)
    for _ in range(4):
        fill(1)
        made.step()
    assert len(fake_airflow.runs) == 2
    fake_airflow.work(ledger)
    made.step()
    assert len(fake_airflow.runs) == 3
    assert fake_airflow.work(ledger) == 2


def test_while_no_run_could_be_made_what_waits_is_not_counted_at_every_turn(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, monkeypatch
):
    counted = []
    count = ledger.backlog
    monkeypatch.setattr(ledger, "backlog", lambda: counted.append(1) or count())
    made = batches(ledger, airflow, linger=1e-6, batch_size=1)
    fill(3)
    while made.step(woken=False) == 0.0:
        pass
    assert len(fake_airflow.runs) == 2
    before = len(counted)
    made.step(woken=False)
    assert len(counted) == before
    made.step(woken=True)
    assert len(counted) == before + 1
    fake_airflow.work(ledger)
    made.step(woken=False)
    assert len(fake_airflow.runs) == 3


def test_how_long_ago_a_run_was_posted_is_told(ledger: Ledger, airflow: AirflowApi, fill, ledger_engine: Engine):
    fill(1)
    batches(ledger, airflow).step()
    with ledger_engine.begin() as connection:
        connection.execute(
            text("UPDATE runs SET decided_at = now() - interval '1 day', posted_at = now() - interval '1 hour'")
        )
    (run,) = ledger.open_runs()
    assert timedelta(seconds=run.age) >= timedelta(hours=1)
    assert timedelta(seconds=run.age) < timedelta(hours=2)
