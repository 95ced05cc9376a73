"""`python -m pipelines.dispatcher`: the dispatcher as one process, configured by CARELOOM_CONFIG."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fhir_adapters.errors import AdapterError
from monitoring import metrics
from pipelines.airflow_api import AirflowApi
from pipelines.config import Config, load
from pipelines.dispatcher.backoff import Backoff, Holds
from pipelines.dispatcher.batches import Batches
from pipelines.dispatcher.intake import Intake
from pipelines.dispatcher.matching import Reader
from pipelines.dispatcher.pressure import Pressure
from pipelines.dispatcher.reaper import Reaper
from pipelines.errors import ConfigError
from pipelines.ledger import Ledger, Match, engine
from pipelines.process import log_as_json, run_threads, stop_at_signals
from plugins import manager
from plugins.matching import Matcher
from plugins.scenario import Scenario

log = logging.getLogger("pipelines.dispatcher")


def main() -> int:
    """Run until SIGTERM; returns the exit code."""
    log_as_json("dispatcher")
    try:
        config = load()
    except ConfigError as error:
        log.critical("%s", error)
        return 2
    stop = stop_at_signals()
    try:
        server, _ = metrics.serve(metrics.DISPATCHER, config.dispatcher.metrics_port)
    except OSError as error:
        log.critical("dispatcher.metrics_port %d: %s", config.dispatcher.metrics_port, error.strerror)
        return 1
    try:
        return 0 if dispatch(config, stop) else 1
    finally:
        server.shutdown()
        server.server_close()
        log.info("ended")


def dispatch(config: Config, stop: threading.Event) -> bool:
    """Run the three threads until `stop` is set; False when one of them broke."""
    settings = config.dispatcher
    loaded = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios)
    for plugin, reason in loaded.refused:
        log.error("plugin %s is refused: %s", plugin, reason)
    scenarios = loaded.scenarios.values()
    reader = Reader(Matcher(scenarios).types, _matches(scenarios))
    ledger_engine = engine(config.ledger.url.get_secret_value())
    ledger = Ledger(
        ledger_engine,
        max_attempts=settings.max_attempts,
        backoff=settings.backoff,
        backoff_cap=settings.backoff_cap,
    )
    airflow = AirflowApi(config.airflow)
    pressure = Pressure(settings.max_waiting)
    holds = Holds(settings.backoff, settings.backoff_cap)
    wake = threading.Event()

    def backoff() -> Backoff:
        return Backoff(settings.backoff / 4, min(settings.backoff_cap, 5.0))

    intake = Intake(config, ledger, reader, pressure, wake.set, backoff())
    batches = Batches(settings, ledger, airflow, loaded.scenarios, pressure, holds, backoff())
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
        airflow.close()
        ledger_engine.dispose()


def _matches(scenarios: Iterable[Scenario[Any]]) -> Callable[[Mapping[str, Any]], Sequence[Match]]:
    """One matcher a scenario, so that a trigger that fails on a resource is no other scenario's trouble."""
    matchers = [(Match(s.id, s.version, s.stage.value), Matcher([s])) for s in scenarios]

    def match(resource: Mapping[str, Any]) -> Sequence[Match]:
        found = []
        for started, matcher in matchers:
            try:
                if matcher.match(resource):
                    found.append(started)
            except AdapterError as error:
                log.warning("a trigger of %s does not start it: %s", started.scenario, error)
        return found

    return match


if __name__ == "__main__":
    sys.exit(main())
