"""Ready rows -> run decided on in the ledger -> POST to Airflow -> noted as posted.

A run that was decided on and may not have been posted is posted again, after a crash as after a timeout: Airflow
answers 409 when it has it. While Airflow cannot be asked nothing is decided, and the rows wait in the ledger.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from fhir_adapters.trace_context import parse
from monitoring import metrics
from monitoring.metrics import PostOutcome
from pipelines.config import Dispatcher
from pipelines.dispatcher.airflow_api import AirflowApi, Triggered
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.standing import Standing
from pipelines.dispatcher.watched import Watched
from pipelines.errors import AirflowError, AirflowUnavailable
from pipelines.fail_points import fail_point
from pipelines.failures.dependencies import AIRFLOW
from pipelines.failures.policy import Trouble
from pipelines.ledger import Ledger, Run
from pipelines.ledger.holdups import Holdup, Holdups
from pipelines.ledger.rows import Backlog
from pipelines.models.admission import Room
from pipelines.process import describe
from pipelines.telemetry import tracing

log = logging.getLogger(__name__)

#: Seconds between looks when nothing is known to wait: a backoff may have ended, a switch may have been turned.
_IDLE = 0.5
#: Seconds until what waits is counted again while every run that may be open is: over 20,000 rows that takes 0.1 s.
_FULL = 1.0


class Batches:
    """The thread that makes runs.

    Args:
        config: how many rows a run, how long to linger, how many open runs.
        ledger: has the rows.
        airflow: runs them.
        installed: ids of the scenarios that this installation has.
        pressure: is told how much waits.
        holds: scenarios that get no run for a while.
        backoff: after Airflow or the ledger failed.
        room: tells how much the models can take; None where nobody asks them.
        standing: scenarios of which a run always stays.
    """

    def __init__(
        self,
        config: Dispatcher,
        ledger: Ledger,
        airflow: AirflowApi,
        installed: Collection[str],
        pressure: Pressure,
        holds: Holds,
        backoff: Backoff,
        room: Room | None = None,
        standing: Standing | None = None,
    ) -> None:
        self._config = config
        self._ledger = ledger
        self._airflow = airflow
        self._installed = frozenset(installed)
        self._pressure = pressure
        self._holds = holds
        self._backoff = backoff
        self._watched = Watched(ledger, AIRFLOW, Trouble.AIRFLOW_UNAVAILABLE)
        self._room = room
        self._standing = standing or Standing()
        self._without_room: set[str] = set()
        self._idle_reasons: dict[str, str] = {}
        self._gauged: set[str] = set()
        for scenario in self._installed:  # at 0 from the start: Prometheus sees no rise in a series that begins at 1
            metrics.BATCH_SIZE.labels(scenario)
            metrics.ROWS_TAKEN.labels(scenario)
        self._full_until = 0.0
        self._holdups = Holdups()

    def run(self, stop: threading.Event, wake: threading.Event) -> None:
        """Make runs until `stop` is set; at once when `wake` is, else every so often."""
        woken = True
        while not stop.is_set():
            try:
                pause = self.step(woken)
                self._backoff.succeeded()
            except (AirflowError, SQLAlchemyError) as error:
                retry_after = None
                if isinstance(error, AirflowUnavailable):
                    retry_after = error.retry_after
                    self._watched.failed(retry_after)
                    self._holdups.note_all(Holdup.AIRFLOW_DOWN)
                pause = self._backoff.failed(retry_after)
                log.warning("no runs can be made (%s); again in %.1f s", describe(error), pause)
                stop.wait(pause)
                woken = True
                continue
            woken = wake.wait(pause)
            wake.clear()

    def step(self, woken: bool = True) -> float:
        """Post what is not posted, decide on new runs and post them; returns the seconds until the next look.

        Args:
            woken: whether something came; else, while no further run could be made, only finished ones are looked for.

        Raises:
            AirflowUnavailable: Airflow cannot be asked; every row that is in no run waits.
            SQLAlchemyError: the ledger failed.
        """
        if not self._close_finished() and not woken and time.monotonic() < self._full_until:
            return self._config.linger
        backlog = self._ledger.backlog()
        self._pressure.measured(_moving(backlog))
        self._holdups.forget({b.scenario for b in backlog if b.waiting})
        due = self._standing.due({b.scenario for b in backlog if b.ready or b.open_runs})
        if not backlog and not due:
            with suppress(AirflowError):  # kept fresh: the first event after a quiet hour does not wait for this answer
                self._airflow.dags()
            return _IDLE
        for run in self._ledger.open_runs():
            if not run.posted:
                self._post(run)
        dags = self._airflow.dags(leniently=True)
        self._watched.served()
        self._show(backlog, dags)
        able = [b for b in backlog if self._able(b.scenario, dags)]
        self._withdraw(backlog, able)
        self._pressure.measured(_moving(able))
        for scenario in due:
            self._stand(scenario, dags)
        taken = {b.scenario: self._take(b) for b in able}
        more = any(b.ready > taken[b.scenario] and self._open_with(b, taken) < self._config.max_open_runs for b in able)
        self._full_until = 0.0 if more else time.monotonic() + _FULL
        if more and any(taken.values()):
            return 0.0
        return min(_IDLE, self._config.linger) if any(b.ready or b.open_runs > b.staying for b in able) else _IDLE

    def _withdraw(self, backlog: Iterable[Backlog], able: Iterable[Backlog]) -> None:
        """Have the runs take no more that stay for a scenario which may not go on: paused, held, gone, without room."""
        may = {b.scenario for b in able if not b.staying or self._has_room(b)}
        stays = {b.scenario for b in backlog if b.staying} - may
        if stays and self._ledger.withdraw(stays):
            log.info("runs that stay take no more: %s", ", ".join(sorted(stays)))

    def _close_finished(self) -> bool:
        finished = self._ledger.close_finished_runs()
        for run in finished:
            self._holds.succeeded(run.scenario)
            metrics.ROWS_TAKEN.labels(run.scenario).inc(run.taken)
        return bool(finished)

    @staticmethod
    def _open_with(backlog: Backlog, taken: Mapping[str, int]) -> int:
        return backlog.open_runs + (taken[backlog.scenario] > 0)

    def _take(self, backlog: Backlog) -> int:
        """Decide on a run of a scenario and post it where it is time; returns its rows, 0 where there is none."""
        if not self._due(backlog):
            return 0
        held = self._holdups.until_now(backlog.scenario)
        run = self._ledger.take_run(backlog.scenario, self._config.batch_size, traces=tracing.on(), held=held)
        if run is None:  # what is ready is superseded, or, for all that we know, switched off
            self._holdups.note(backlog.scenario, Holdup.SWITCHED_OFF)
            return 0
        self._holdups.ended(backlog.scenario)
        fail_point("dispatcher.decided")
        metrics.BATCH_SIZE.labels(run.scenario).observe(run.size)
        self._post(run)
        return run.size

    def _stand(self, scenario: str, dags: Mapping[str, bool]) -> None:
        """Decide on a run that stays and takes what comes, and post it, where the scenario may go on."""
        self._standing.begun(scenario)
        if not self._able(scenario, dags) or not self._has_room(Backlog(scenario, 0, 0.0, 0, 0)):
            return
        if (run := self._ledger.stand(scenario)) is not None:
            log.info("%s: run %s stands", scenario, run.run_id)
            self._post(run)

    def _due(self, backlog: Backlog) -> bool:
        """At once while nothing of the scenario runs; else rows wait for company, and for one of the runs to end.

        A run that stays takes rows itself: they wait for it as long as they would for company, and no longer.
        """
        if not backlog.ready:
            return False
        full = backlog.ready >= self._config.batch_size and not backlog.staying
        if backlog.open_runs >= self._config.max_open_runs:
            holdup = Holdup.RUNS_FULL
        elif not self._has_room(backlog):
            holdup = Holdup.MODEL_FULL
        elif not backlog.open_runs or full or backlog.oldest >= self._config.linger:
            return True
        else:
            holdup = Holdup.LINGER
        self._holdups.note(backlog.scenario, holdup)
        return False

    def _has_room(self, backlog: Backlog) -> bool:
        """Whether the scenario's model can take more of it; what it cannot take waits in the ledger."""
        lacks = self._room.lacks(backlog.scenario, backlog.oldest) if self._room else ""
        if bool(lacks) != (backlog.scenario in self._without_room):
            self._without_room ^= {backlog.scenario}
            log.info("%s: %s", backlog.scenario, f"rows wait: {lacks}" if lacks else "its model has room again")
        return not lacks

    def _able(self, scenario: str, dags: Mapping[str, bool]) -> bool:
        """Whether a run would start; why not is said once."""
        reason, holdup = "", Holdup.CAME_TO_NOTHING
        if scenario not in self._installed:
            reason, holdup = "it is not installed here", Holdup.NOT_INSTALLED
        elif scenario not in dags:
            reason, holdup = "Airflow has no DAG of it that can run", Holdup.NO_DAG
        elif dags[scenario]:
            reason, holdup = "its DAG is paused in Airflow", Holdup.PAUSED
        if reason != self._idle_reasons.get(scenario, ""):
            log.warning("%s: %s", scenario, f"rows wait: {reason}" if reason else "rows go on")
            self._idle_reasons[scenario] = reason
        able = not reason and not self._holds.holds(scenario)
        if not able:
            self._holdups.note(scenario, holdup)
        return able

    def _post(self, run: Run) -> None:
        """Ask Airflow for a run. One that Airflow refuses gives its rows back, and the scenario is held for a while.

        Raises:
            AirflowUnavailable: it may or may not be there; it stays unposted and is asked for again.
        """
        began = time.perf_counter()
        outcome = PostOutcome.REFUSED
        try:
            with _dispatching(run) as span:
                trace = span.context or run.trace()
                triggered = self._airflow.trigger(run.scenario, run.run_id, {"items": run.size, **trace.headers})
            outcome = PostOutcome.CREATED if triggered is Triggered.CREATED else PostOutcome.EXISTS
        except AirflowUnavailable:
            outcome = PostOutcome.UNAVAILABLE
            raise
        except AirflowError as error:
            self._ledger.release_run(run.run_id, "refused")
            held = self._holds.failed(run.scenario)
            log.warning("%s: %s; its rows wait, held for %.1f s", run.scenario, error, held)
        else:
            fail_point("dispatcher.posted")
            self._ledger.run_posted(run.run_id)
            fail_point("dispatcher.noted")
        finally:
            metrics.AIRFLOW_POST_DURATION.labels(outcome).observe(time.perf_counter() - began)
            if outcome in (PostOutcome.REFUSED, PostOutcome.UNAVAILABLE):
                metrics.AIRFLOW_ERRORS.labels(outcome).inc()

    def _show(self, backlog: Iterable[Backlog], dags: Mapping[str, bool]) -> None:
        """Gauges of every scenario that is installed or has rows; what has neither any longer goes to 0."""
        found = {b.scenario: b.open_runs for b in backlog}
        staying = {b.scenario: b.staying for b in backlog}
        self._gauged |= found.keys() | self._installed
        for scenario in self._gauged:
            waits_in_vain = scenario in found and (scenario not in self._installed or scenario not in dags)
            metrics.OPEN_RUNS.labels(scenario).set(found.get(scenario, 0))
            metrics.STAYING_RUNS.labels(scenario).set(staying.get(scenario, 0))
            metrics.SCENARIO_PAUSED.labels(scenario).set(dags.get(scenario, False))
            metrics.SCENARIO_NOT_INSTALLED.labels(scenario).set(waits_in_vain)


def _moving(backlog: Iterable[Backlog]) -> int:
    """Rows that wait for what comes by itself: one patient's dead letter must not stop the reading for everybody."""
    return sum(one.waiting - one.for_a_person for one in backlog)


def _dispatching(run: Run) -> tracing.Span:
    """The span of asking for a run: in its event's trace, or the root of the run's own, with a link to each event's."""
    if not tracing.on():
        return tracing.NOTHING
    about: dict[str, tracing.Value] = {
        "careloom__run__id": run.run_id,
        "careloom__run__size": run.size,
        "careloom__scenario__id": run.scenario,
    }
    if run.alone:
        return tracing.span("dispatch", "producer", about, parent=run.alone)
    links = [context for trace in run.traces if (context := parse(trace))]
    return tracing.span("dispatch", "producer", about, own=run.trace(tracing.share()), links=links)
