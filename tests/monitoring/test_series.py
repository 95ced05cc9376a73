"""The number of series has a bound: counted from the declarations, and shown for real by every process."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from monitoring import metrics
from monitoring.ledger_collector import LedgerCollector, Objective
from monitoring.metrics import DECLARED, Metric
from monitoring.series import MOST, PROCESS_SERIES, Size, bound, combinations, total
from pipelines.ledger.fold import canonical
from pipelines.ledger.rows import Account
from pipelines.ledger.snapshot import OpenWork, Sample, Snapshot, SubscriptionState
from pipelines.ledger.states import State

ROOT = Path(__file__).parents[2]
HOUSE = Size()
SMALL = Size(scenarios=3, models=2, sources=2, partitions=2, plugins=1)


def series_of(registry: CollectorRegistry) -> dict[str, int]:
    """Declared name -> series on the registry's page; what was declared by nobody stands under its own name."""
    found: dict[str, int] = {}
    for line in generate_latest(registry).decode().splitlines():
        if not line.startswith("#"):
            name = re.split(r"[{ ]", line, maxsplit=1)[0]
            declared = re.sub(r"_(bucket|sum|count)$", "", name)
            name = declared if declared in DECLARED else name
            found[name] = found.get(name, 0) + 1
    return found


def test_a_house_of_84_scenarios_4_models_and_20_sources_stays_within_its_bound() -> None:
    assert total(HOUSE) <= MOST, "more series than the bound that is written down: fewer labels, or a reason for more"
    assert f"{total(HOUSE):,}" in (ROOT / "docs" / "metrics.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("metric", DECLARED.values(), ids=lambda metric: metric.name)
def test_the_bound_takes_every_label_once(metric: Metric) -> None:
    sets = [canonical(labels) for labels in combinations(metric, SMALL)]
    assert len(sets) == len(set(sets)) > 0
    assert all(labels.keys() == set(metric.labels) for labels in combinations(metric, SMALL))


def test_what_the_exporter_shows_of_a_full_ledger_is_what_was_counted() -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(full_ledger(HOUSE))
    shown = series_of(registry)
    # every scenario asks a panel, whose joined name is one more model: docs/metrics.md counts it apart
    panel = {metrics.WORK_FINISHED.name: HOUSE.scenarios, metrics.DECISIONS.name: 3 * HOUSE.scenarios}
    assert shown == {name: bound(metric, HOUSE) + panel.get(name, 0) for name, metric in metrics.LEDGER.items()}


def test_what_the_other_processes_show_is_what_was_counted() -> None:
    shown: dict[str, int] = {}
    for process, registry in metrics.REGISTRIES.items():
        filled = CollectorRegistry()
        for metric in DECLARED.values():
            if metric.process == process and metric.name not in metrics.LEDGER:
                filled.register(full_metric(metric, HOUSE))
        shown |= series_of(filled)
        own = {name: n for name, n in series_of(registry).items() if name.startswith("process_")}
        assert sum(own.values()) <= PROCESS_SERIES
    wanted = {name: bound(m, HOUSE) for name, m in DECLARED.items() if name not in metrics.LEDGER}
    assert shown == wanted


def full_metric(metric: Metric, size: Size) -> metrics.Counter | metrics.Gauge | metrics.Histogram:
    """A metric as its process would have it, with every set of labels."""
    kind = {"counter": metrics.Counter, "gauge": metrics.Gauge, "histogram": metrics.Histogram}[metric.kind]
    more = {"buckets": metric.buckets} if metric.buckets else {}
    made = kind(metric.name, metric.help, metric.labels, registry=None, **more)
    for labels in combinations(metric, size):
        if labels:
            made.labels(**labels)
    return made


def full_ledger(size: Size) -> LedgerCollector:
    """The exporter's view of a ledger in which everything has happened to every scenario, model and source."""

    def sets(metric: Metric) -> list[dict[str, str]]:
        return [dict(labels) for labels in combinations(metric, size)]

    now = Snapshot(
        account=Account(0, 0, 0, 0, 0, 0, {}),
        open_work=[OpenWork(one["scenario"], one["stage"], State(one["state"]), 1, 1.0) for one in sets(metrics.WORK)],
        unfolded=0,
        samples=[sample for metric in metrics.FOLDED for sample in samples(metric, size)],
        failures={(one["scenario"], one["error_class"], one["hop"]): 1 for one in sets(metrics.FAILURES)},
        poison_open={},
        switches=[(one["kind"], one["target"]) for one in sets(metrics.SWITCHED_OFF)],
        subscriptions=[SubscriptionState(one["source"], 1, 1, 1.0) for one in sets(metrics.SUBSCRIPTION_GAPS)],
        reconciled={one["source"]: 1.0 for one in sets(metrics.RECONCILED_UNTIL)},
        held=sorted({one["scenario"] for one in sets(metrics.SCENARIO_NEEDS_INFO)}),
        down={one["dependency"]: True for one in sets(metrics.DEPENDENCY_DOWN)},
    )
    every = {one["source"]: 30.0 for one in sets(metrics.RECONCILE_INTERVAL)}
    models = {one["model"]: one["version"] for one in sets(metrics.MODEL_INFO)}
    objectives = [
        Objective(one["scenario"], one["stage"], one["version"], 60.0, models=tuple(models), panel=True)
        for one in sets(metrics.SCENARIO_INFO)
    ]
    servers = {one["dependency"].partition(":")[2]: one["server"] for one in sets(metrics.MODEL_SERVER_INFO)}
    return LedgerCollector(lambda: now, objectives, every, models=models, servers=servers)


def samples(metric: Metric, size: Size) -> Iterator[Sample]:
    """As `pipelines.ledger.fold` keeps them, every bucket hit."""
    for labels in combinations(metric, size):
        if metric.kind != "histogram":
            yield Sample(metric.name, labels, 1.0)
            continue
        for bound_ in (*metric.buckets, float("inf")):
            yield Sample(f"{metric.name}_bucket", {**labels, "le": metrics.le(bound_)}, 1.0)
        yield Sample(f"{metric.name}_sum", labels, 1.0)
