"""What an Airflow that is unreachable, refuses or loses its answer does to rows: nothing that lasts."""

from __future__ import annotations

import pytest

from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Backoff
from pipelines.errors import AirflowUnavailable
from pipelines.ledger import Ledger, State
from tests.dispatcher.parts import NOTE, batches


def test_while_airflow_cannot_be_asked_no_row_is_taken(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow, max_waiting=2)
    fake_airflow.status = 503
    fill(3)
    with pytest.raises(AirflowUnavailable):
        made.step()
    assert ledger.open_runs() == []
    assert made._pressure.too_high
    fake_airflow.status = None
    made.step()
    assert fake_airflow.work(ledger) == 3


def test_a_run_whose_answer_was_lost_is_asked_for_again_and_is_one_run(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made = batches(ledger, airflow)
    fake_airflow.answers_lost = 1
    fill(3)
    with pytest.raises(AirflowUnavailable):
        made.step()
    assert [run.posted for run in ledger.open_runs()] == [False]
    made.step()
    assert [run.posted for run in ledger.open_runs()] == [True]
    assert len(fake_airflow.runs) == 1
    assert fake_airflow.work(ledger) == 3


def test_a_refused_run_gives_its_rows_back_and_the_scenario_is_held(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    made = batches(ledger, airflow)
    fill(3)
    run = ledger.take_run(NOTE, 10)  # decided on before the DAG went away
    assert run is not None
    fake_airflow.paused = {}
    made.step()
    assert ledger.open_runs() == []
    assert ledger.account().work == {State.WAITING: 3}
    fake_airflow.paused = {NOTE: False}
    made.step()
    assert fake_airflow.runs == {}


def test_the_thread_outlives_an_airflow_that_is_away(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, until):
    import threading

    stop, wake = threading.Event(), threading.Event()
    fake_airflow.status = 503
    fill(2)
    thread = threading.Thread(target=batches(ledger, airflow).run, args=(stop, wake))
    thread.start()
    wake.set()
    until(lambda: fake_airflow.logins)
    fake_airflow.status = None
    until(lambda: fake_airflow.runs)
    stop.set()
    wake.set()
    thread.join()
    assert fake_airflow.work(ledger) == 2


def test_waits_grow_up_to_their_cap_and_start_anew():
    backoff = Backoff(1.0, 8.0)
    waits = [backoff.failed() for _ in range(50)]
    assert waits[0] <= 1.0
    assert 4.0 < max(waits[4:]) <= 8.0
    backoff.succeeded()
    assert backoff.failed() <= 1.0
