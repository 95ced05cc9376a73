"""Runs that ended in Airflow without finishing their rows: the rows are given back, and the run is closed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable

from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from monitoring.metrics import PostOutcome
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Holds
from pipelines.errors import AirflowError, AirflowUnavailable
from pipelines.ledger import Ledger, Run
from pipelines.process import describe

log = logging.getLogger(__name__)

#: Seconds that a run is left alone after it was posted: it ends by itself as a rule, and Airflow needs a moment to
#: know of it.
_GRACE = 5.0
_ENDED = ("success", "failed")
_GONE = "gone"


class Reaper:
    """The thread that looks after runs. What a run loses to an outage of the ledger counts against none of its rows.

    Args:
        ledger: has the runs.
        airflow: knows how they are.
        holds: is told of scenarios whose runs come to nothing.
        every: seconds between looks.
        wake: called after rows were given back.
        grace: seconds that a run is left alone after it was posted.
    """

    def __init__(
        self,
        ledger: Ledger,
        airflow: AirflowApi,
        holds: Holds,
        every: float,
        wake: Callable[[], None],
        grace: float = _GRACE,
    ) -> None:
        self._ledger = ledger
        self._airflow = airflow
        self._holds = holds
        self._every = every
        self._wake = wake
        self._grace = grace
        self._away = False
        self._back_at = float("-inf")

    def run(self, stop: threading.Event) -> None:
        """Look after runs until `stop` is set."""
        while not stop.wait(self._every):
            try:
                self.step()
            except AirflowError as error:
                unavailable = isinstance(error, AirflowUnavailable)
                metrics.AIRFLOW_ERRORS.labels(PostOutcome.UNAVAILABLE if unavailable else PostOutcome.REFUSED).inc()
                log.warning("runs cannot be looked after: %s", error)
            except SQLAlchemyError as error:
                self._away = True
                log.warning("runs cannot be looked after: the ledger failed (%s)", describe(error))

    def step(self) -> int:
        """Close finished runs, and release those that ended unfinished; returns the number of rows given back.

        Raises:
            AirflowError: Airflow does not say how a run is; it is asked again the next time.
            SQLAlchemyError: the ledger failed.
        """
        finished_runs = self._ledger.close_finished_runs()
        if self._away:
            self._away, self._back_at = False, time.monotonic()
        for finished in finished_runs:
            self._holds.succeeded(finished.scenario)
            metrics.ROWS_TAKEN.labels(finished.scenario).inc(finished.taken)
        given_back = sum(self._look_at(run) for run in self._ledger.open_runs() if self._is_in_question(run))
        if given_back:
            self._wake()
        return given_back

    def _is_in_question(self, run: Run) -> bool:
        """Whether Airflow is asked how it is: not while its own process says that it is there."""
        return run.posted and not run.staying and run.age > self._grace

    def _look_at(self, run: Run) -> int:
        state = self._airflow.run_state(run.scenario, run.run_id) or _GONE
        if state not in (*_ENDED, _GONE):
            return 0
        saw_an_outage = run.age > time.monotonic() - self._back_at
        rows = self._ledger.release_run(run.run_id, state, blameless=saw_an_outage)
        if rows:
            held = self._holds.failed(run.scenario)
            log.warning(
                "run %s of %s is %s in Airflow with %d rows unfinished; they wait again, held for %.1f s",
                run.run_id, run.scenario, state, rows, held,
            )  # fmt: skip
        return rows
