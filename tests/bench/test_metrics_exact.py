"""The bench's own sums over the ledger's rows agree with the fold's, and a counter that is off by one is told."""

from __future__ import annotations

import json

from prometheus_client import CollectorRegistry, generate_latest
from sqlalchemy import Engine, text

from monitoring import metrics
from monitoring.ledger_collector import LedgerCollector, Objective
from pipelines.ledger.fold import canonical, fold_all
from pipelines.ledger.fold_decisions import fold_decisions
from pipelines.ledger.snapshot import snapshot
from tests.bench import metrics_exact, scrape


def test_a_folded_ledger_differs_from_its_rows_in_nothing(ledger_engine: Engine) -> None:
    scrape.fill(ledger_engine, 1, 500)
    with ledger_engine.begin() as connection:
        connection.execute(text("UPDATE work SET state = 'stale', written_at = NULL, model = NULL WHERE id % 7 = 0"))
        connection.execute(text("UPDATE work SET rules_written_at = started_at WHERE id % 5 = 0"))
        connection.execute(text("UPDATE work SET asked = 'null', verdicts = 'null', counted = 'null' WHERE id % 3 = 0"))
        failed = canonical({"hook": "before_infer", "plugin": "ward", "scenario": "pre_visit.triage"})
        counted = json.dumps({metrics.HOOK_ERRORS.name: {failed: 2}})
        connection.execute(text("UPDATE work SET counted = :counted WHERE id % 50 = 0"), {"counted": counted})
    objectives = [Objective(name, stage, "1", 600.0) for name, stage in scrape.SCENARIOS]
    fold_all(ledger_engine, 60, deadlines=scrape.DEADLINES)
    assert fold_decisions(ledger_engine, 60) == 250
    registry = CollectorRegistry()
    registry.register(LedgerCollector(lambda: snapshot(ledger_engine), objectives))
    page = metrics_exact.read(generate_latest(registry).decode())
    found = metrics_exact.compare(ledger_engine, page)
    assert found.lines == []
    assert (found.total, round(found.seconds, 6)) == (0, 0)
    assert found.compared > 1000
    assert page[f'{metrics.HOOK_ERRORS.name}{{hook="before_infer",plugin="ward",scenario="pre_visit.triage"}}'] == 20

    [series] = [one for one in page if one.startswith("careloom_event_to_draft_seconds_count") and page[one]][:1]
    found = metrics_exact.compare(ledger_engine, {**page, series: page[series] + 1})
    assert found.total == 1
    assert series in found.lines[0]


def test_every_metric_that_rows_are_folded_into_is_compared() -> None:
    assert {metric.name for metric in metrics.FOLDED} == {name for name, _ in metrics_exact.TRUTH}


def test_only_what_never_goes_back_is_held_to_that() -> None:
    assert metrics_exact.is_folded('careloom_hop_duration_seconds_bucket{hop="written",le="1.0"}')
    assert metrics_exact.is_folded('careloom_drafts_total{outcome="created"}')
    assert not metrics_exact.is_folded('careloom_work_items{state="waiting"}')
    assert not metrics_exact.is_folded("process_cpu_seconds_total")
