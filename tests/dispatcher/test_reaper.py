"""Runs that ended are closed and give back what they did not finish; those under way are left alone."""

from __future__ import annotations

import pytest
from sqlalchemy import Engine, text

from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Holds
from pipelines.ledger import Ledger, State
from tests.dispatcher.parts import NOTE, batches, reaper


@pytest.mark.parametrize("ended", ["success", "failed", None])
def test_a_run_that_ended_with_rows_unfinished_gives_them_back(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ended: str | None
):
    fill(3)
    batches(ledger, airflow).step()
    (key,) = fake_airflow.runs
    if ended is None:
        del fake_airflow.runs[key]
    else:
        fake_airflow.runs[key] = ended
    holds = Holds(3600, 3600)
    assert reaper(ledger, airflow, holds).step() == 3
    assert ledger.open_runs() == []
    assert ledger.account().work == {State.WAITING: 3}
    assert holds.holds(NOTE)


@pytest.mark.parametrize("state", ["queued", "running"])
def test_a_run_under_way_is_left_alone(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, state: str):
    fill(3)
    batches(ledger, airflow).step()
    (key,) = fake_airflow.runs
    fake_airflow.runs[key] = state
    assert reaper(ledger, airflow).step() == 0
    assert len(ledger.open_runs()) == 1


def test_a_run_that_airflow_does_not_know_yet_is_left_alone_for_a_while(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    fill(1)
    batches(ledger, airflow).step()
    fake_airflow.runs.clear()
    assert reaper(ledger, airflow, grace=3600).step() == 0
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE runs SET posted_at = now() - interval '2 hours'"))
    assert reaper(ledger, airflow, grace=3600).step() == 1


def test_a_run_that_was_decided_on_and_not_posted_is_not_the_reapers(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    fill(1)
    ledger.take_run(NOTE, 1)
    assert reaper(ledger, airflow).step() == 0
    assert len(ledger.open_runs()) == 1


def test_a_finished_run_ends_the_hold_on_its_scenario(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    fill(1)
    batches(ledger, airflow).step()
    fake_airflow.work(ledger)
    holds = Holds(3600, 3600)
    holds.failed(NOTE)
    assert reaper(ledger, airflow, holds).step() == 0
    assert not holds.holds(NOTE)
    assert ledger.open_runs() == []


def test_a_run_that_an_outage_of_the_ledger_ended_counts_no_attempt_and_a_later_one_does(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, ledger_engine: Engine
):
    def attempts() -> list[int]:
        with ledger_engine.connect() as connection:
            return list(connection.execute(text("SELECT attempts FROM work ORDER BY id")).scalars())

    looks_after = reaper(ledger, airflow)
    for outage, counted in ((True, [0, 0]), (False, [1, 1])):
        fill(2) if outage else None
        made = batches(ledger, airflow, linger=1e-6)
        made.step()
        [run] = ledger.open_runs()
        assert len(ledger.claim(run.run_id, 60)) == 2
        if outage:
            looks_after._away = True  # as `run` notes when the ledger fails
        else:
            looks_after._back_at = float("-inf")
        fake_airflow.runs[next(key for key in fake_airflow.runs if key[1] == run.run_id)] = "failed"
        assert looks_after.step() == 2
        assert attempts() == counted
        with ledger_engine.begin() as connection:
            connection.execute(text("UPDATE work SET not_before = now()"))
