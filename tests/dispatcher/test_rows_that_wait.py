"""Rows for which no run may be made yet wait in the ledger, hold nobody up, and go on afterwards."""

from __future__ import annotations

from typing import Any

import pytest

from pipelines.config import Dispatcher
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.pressure import Pressure
from pipelines.ledger import Ledger, State
from tests.dispatcher.parts import NOTE, batches


def test_rows_of_a_paused_scenario_wait_and_go_on_afterwards(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow)
    fake_airflow.paused[NOTE] = True
    fill(3)
    made.step()
    assert fake_airflow.runs == {}
    assert ledger.account().work == {State.WAITING: 3}
    fake_airflow.paused[NOTE] = False
    made.step()
    assert fake_airflow.work(ledger) == 3


@pytest.mark.parametrize("absent", ["not installed here", "no DAG in Airflow"])
def test_rows_of_a_scenario_that_cannot_run_wait_and_hold_nobody_up(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill, absent: str, caplog
):
    other = "pre_visit.uninstalled" if absent == "not installed here" else NOTE
    if other == NOTE:
        fake_airflow.paused = {}
    fill(3, other)
    made = batches(ledger, airflow, max_waiting=2)
    made.step()
    made.step()
    assert fake_airflow.runs == {}
    assert ledger.account().work == {State.WAITING: 3}
    assert caplog.text.count(f"{other}: rows wait") == 1
    assert not made._pressure.too_high


def test_reading_stops_while_too_much_waits(ledger: Ledger, airflow: AirflowApi, fake_airflow, fill):
    made = batches(ledger, airflow, max_waiting=5, batch_size=2)
    fill(12)
    made.step()
    assert made._pressure.too_high
    for _ in range(8):
        made.step()
        fake_airflow.work(ledger)
    assert not made._pressure.too_high


def test_rows_for_a_model_without_room_wait_in_the_ledger_until_there_is_some(
    ledger: Ledger, airflow: AirflowApi, fake_airflow, fill
):
    class Room:
        says = "9 requests wait at model m"

        def lacks(self, scenario: str, oldest: float) -> str:
            assert scenario == NOTE
            assert oldest >= 0
            return self.says

    room: Any = Room()
    config = Dispatcher.model_validate({"batch_size": 10})
    pressure, holds = Pressure(config.max_waiting), Holds(3600, 3600)
    made = Batches(config, ledger, airflow, {NOTE}, pressure, holds, Backoff(0.01, 0.01), room)
    fill(3)
    made.step()
    assert fake_airflow.conf == {}
    assert ledger.account().work == {State.WAITING: 3}
    room.says = ""
    made.step()
    assert [conf["items"] for conf in fake_airflow.conf.values()] == [3]
