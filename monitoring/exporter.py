"""The exporter: folds finished work of the ledger, and serves /metrics and /health. `python -m monitoring.exporter`.

It holds nothing of its own: kill it, run two of it, and the counters stay exact.
"""

from __future__ import annotations

import json
import logging
import signal
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from socketserver import ThreadingMixIn
from threading import Event, Thread
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app
from sqlalchemy import Engine

from monitoring import metrics
from monitoring.disks import Disks
from monitoring.ledger_collector import LedgerCollector, Objective
from monitoring.metrics import Metric
from pipelines.config import Config, load
from pipelines.errors import ConfigError
from pipelines.ledger.database import impatient_engine
from pipelines.ledger.fold import count_overdue, fold_all
from pipelines.ledger.fold_decisions import fold_decisions
from pipelines.ledger.snapshot import snapshot
from pipelines.telemetry.log_lines import set_up
from plugins import manager
from plugins.counters import SCENARIO

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

log = logging.getLogger(__name__)


@dataclass(slots=True)
class Folding:
    """The thread that folds, every `every` seconds until `stop` is set.

    Attributes:
        deadlines: scenario -> seconds from event to draft.
        last_success: Unix time of the last fold that went through; 0 before the first.
    """

    engine: Engine
    every: float
    deadlines: Mapping[str, float] = field(default_factory=dict)
    stop: Event = field(default_factory=Event)
    last_success: float = 0.0

    def run(self) -> None:
        """Fold until told to stop. A ledger that is down is tried again; the next fold makes up for all."""
        while not self.stop.is_set():
            self.once()
            self.stop.wait(self.every)

    def once(self) -> None:
        """One fold of all that is finished; a failure is counted and logged by its class alone."""
        try:
            count_overdue(self.engine, self.deadlines)
            metrics.FOLDED_ROWS.inc(fold_all(self.engine, deadlines=self.deadlines))
            fold_decisions(self.engine)
            self.last_success = time.time()
            metrics.FOLD_LAST_SUCCESS.set(self.last_success)
        except Exception as error:  # noqa: BLE001  whatever it is: a thread that ended would fold nothing more
            metrics.FOLD_ERRORS.inc()
            log.warning("folding failed: %s; trying again in %s s", type(error).__name__, self.every)


def objectives(config: Config) -> list[Objective]:
    """What the scenarios promise that are installed and not disabled."""
    loaded = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios)
    return [
        Objective(
            scenario.id,
            scenario.stage.value,
            scenario.version,
            scenario.deadline.total_seconds(),
            scenario.objective,
            tuple(model.name for model in config.registry.route(scenario.id)),
            panel=bool(scenario.panel),
        )
        for scenario in loaded.scenarios.values()
    ]


def model_servers(config: Config) -> dict[str, str]:
    """Model -> host and port of its server, as Prometheus names an instance; of those that have a server."""
    ports = {"http": 80, "https": 443}
    servers = {}
    for model in config.registry.models:
        url = urlsplit(model.url)
        if url.hostname and model.kind != "batch":
            servers[model.name] = f"{url.hostname}:{url.port or ports.get(url.scheme, 80)}"
    return servers


def plugin_counters(config: Config) -> list[Metric]:
    """The counters that the enabled plugins declare."""
    loaded = manager.load(config.plugins.enabled, config.plugins.disabled_scenarios)
    return [
        Metric(name, "counter", counter.help, (*sorted(counter.labels), SCENARIO), "exporter")
        for name, counter in loaded.counters.items()
    ]


def reconcile_every(config: Config) -> dict[str, float]:
    """The sources that are searched for what they never notified, and how often (seconds)."""
    return {s.name: s.reconcile_every for s in config.sources if s.reconcile_every and s.base_url}


def application(registry: CollectorRegistry, folding: Folding) -> WSGIApplication:
    """/metrics and /health as a WSGI application.

    /health answers 200 as long as the process serves: restarting it would not mend the ledger. What it says of the
    ledger stands in its body.
    """
    page = make_wsgi_app(registry)

    def respond(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return cast("Iterable[bytes]", page(environ, start))
        if path != "/health":
            start("404 Not Found", [("Content-Type", "text/plain")])
            return [b"here are /metrics and /health\n"]
        age = time.time() - folding.last_success if folding.last_success else None
        body = {"status": "ok", "seconds_since_fold": None if age is None else round(age, 3)}
        start("200 OK", [("Content-Type", "application/json")])
        return [json.dumps(body).encode()]

    return respond


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """A scrape is no news."""


def run(config: Config, wait: Callable[[int], object]) -> None:
    """Serve until `wait` returns.

    Args:
        config: `exporter`, `state_dir`, `ledger` and `plugins` are read.
        wait: called with the port once it listens.

    Raises:
        OSError: the port is taken.
    """
    ledger = impatient_engine(config.ledger.url.get_secret_value())
    promised = objectives(config)
    folding = Folding(ledger, config.exporter.fold_every, {o.scenario: o.deadline for o in promised})
    collector = LedgerCollector(
        lambda: snapshot(ledger),
        promised,
        reconcile_every(config),
        plugin_counters(config),
        models={model.name: model.version for model in config.registry.models},
        servers=model_servers(config),
    )
    server = make_server(
        config.exporter.host, config.exporter.port, application(metrics.EXPORTER, folding), _Server, _Silent
    )
    disks = Disks(config.exporter.disks or {"state": config.state_dir})
    metrics.EXPORTER.register(collector)
    metrics.EXPORTER.register(disks)
    threads = [Thread(target=folding.run, name="fold"), Thread(target=server.serve_forever, name="serve")]
    for thread in threads:
        thread.start()
    try:
        wait(server.server_port)
    finally:
        folding.stop.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()
        metrics.EXPORTER.unregister(collector)
        metrics.EXPORTER.unregister(disks)
        ledger.dispose()


def main() -> int:
    """Run by the configuration until SIGTERM or SIGINT."""
    set_up("exporter")
    ends = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)  # before any thread is made, so that only sigwait takes them

    def wait(port: int) -> None:
        log.info("serving /metrics on port %s", port)
        signal.sigwait(ends)

    try:
        config = load()
        set_up("exporter", config.logging)
        run(config, wait)
    except (ConfigError, OSError) as error:
        log.error("%s", error)  # noqa: TRY400 the message is for the operator, the traceback is not
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
