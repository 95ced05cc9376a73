"""`python -m pipelines.dispatcher`: the dispatcher as one process, configured by CARELOOM_CONFIG."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Collection
from contextlib import suppress

from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from pipelines.config import Config, load
from pipelines.dispatcher.airflow_api import AirflowApi
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import reader_of
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.reaper import Reaper
from pipelines.dispatcher.standing import Standing
from pipelines.errors import ConfigError
from pipelines.failures.policy import Pace, Trouble, pace_of
from pipelines.ledger import Ledger, engine
from pipelines.models.admission import Room
from pipelines.process import run_threads, stop_at_signals
from pipelines.telemetry import tracing
from pipelines.telemetry.log_lines import set_up
from plugins import manager

log = logging.getLogger("pipelines.dispatcher")


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    set_up("dispatcher")
    try:
        config = load()
    except ConfigError as error:
        log.critical("%s", error)
        return 2
    set_up("dispatcher", config.logging)
    try:
        tracing.start(config.tracing, "dispatcher")
    except ConfigError as error:
        log.critical("%s", error)
        return 2
    stop = stop_at_signals()
    try:
        server, _ = metrics.serve(metrics.DISPATCHER, config.dispatcher.metrics_port, config.dispatcher.metrics_host)
    except OSError as error:
        log.critical("dispatcher.metrics_port %d: %s", config.dispatcher.metrics_port, error.strerror)
        return 1
    try:
        return 0 if dispatch(config, stop) else 1
    finally:
        server.shutdown()
        server.server_close()
        tracing.flush(config.tracing.flush)
        log.info("ended")


def dispatch(config: Config, stop: threading.Event) -> bool:
    """Run the three threads until `stop` is set; False when one of them broke."""
    settings = config.dispatcher
    loaded = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios)
    for plugin, reason in loaded.refused:
        log.error("plugin %s is refused: %s", plugin, reason)
    scenarios = loaded.scenarios.values()
    reader = reader_of(scenarios)
    ledger_engine = engine(config.ledger.url.get_secret_value())
    ledger = Ledger(
        ledger_engine,
        max_attempts=settings.max_attempts,
        backoff=settings.backoff,
        backoff_cap=settings.backoff_cap,
    )
    airflow = AirflowApi(config.airflow)
    pressure = Pressure(settings.max_waiting)
    usual = Pace(settings.backoff, settings.backoff_cap)
    held = pace_of(Trouble.RUN_CAME_TO_NOTHING, usual)
    holds = Holds(held.first, held.cap)
    wake = threading.Event()

    reading = Backoff.of(pace_of(Trouble.BROKER_UNAVAILABLE, usual))
    posting = Backoff.of(pace_of(Trouble.AIRFLOW_UNAVAILABLE, usual))
    intake = Intake(config, ledger, reader, pressure, wake.set, reading)
    room = Room(config.registry, {s.id: s.deadline.total_seconds() for s in scenarios})
    standing = Standing(_installed(config.runner.standing, loaded.scenarios))
    batches = Batches(settings, ledger, airflow, loaded.scenarios, pressure, holds, posting, room, standing)
    reaper = Reaper(ledger, airflow, holds, settings.reap_every, wake.set)
    log.info("dispatching for %s", ", ".join(loaded.scenarios) or "no scenario at all")
    try:
        return run_threads(
            stop,
            (
                ("intake", lambda: intake.run(stop)),
                ("batches", lambda: batches.run(stop, wake)),
                ("reaper", lambda: reaper.run(stop)),
            ),
        )
    finally:
        with suppress(SQLAlchemyError):  # what stays ends by itself; while nobody watches Airflow nobody takes rows
            ledger.withdraw()
        airflow.close()
        ledger_engine.dispose()


def _installed(standing: Collection[str], scenarios: Collection[str]) -> list[str]:
    """Those of `runner.standing` that there are; the others are named in the log."""
    for unknown in sorted(set(standing) - set(scenarios)):
        log.error("runner.standing names %s, which is not installed here or not enabled: no run stands for it", unknown)
    return [scenario for scenario in standing if scenario in scenarios]


if __name__ == "__main__":
    sys.exit(main())
