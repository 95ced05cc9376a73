"""The dispatcher's parts as its tests need them: made of a ledger and an Airflow, and run by hand."""

from __future__ import annotations

from typing import Any

from pipelines.config import Dispatcher
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.reaper import Reaper
from pipelines.dispatcher.standing import Standing
from pipelines.ledger import Ledger

NOTE = "post_visit.follow_up"


def batches(ledger: Ledger, airflow: AirflowApi, standing: Standing | None = None, **settings: Any) -> Batches:
    """At the fake Airflow, whose one scenario is installed; waits as long for company as no test lasts."""
    config = Dispatcher.model_validate({"linger": 3600, "batch_size": 10, "max_open_runs": 2, **settings})
    pressure = Pressure(config.max_waiting)
    holds, backoff = Holds(3600, 3600), Backoff(0.01, 0.01)
    return Batches(config, ledger, airflow, {NOTE}, pressure, holds, backoff, standing=standing)


def reaper(ledger: Ledger, airflow: AirflowApi, holds: Holds | None = None, grace: float = -1.0) -> Reaper:
    """That gives a run which Airflow does not know no time at all, unless told to."""
    return Reaper(ledger, airflow, holds or Holds(3600, 3600), 1.0, lambda: None, grace)
