"""The ledger as Prometheus metrics: one snapshot for a scrape, and `careloom_ledger_up 0` where there is none."""

from __future__ import annotations

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock
from types import MappingProxyType

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.core import Metric as Family
from prometheus_client.registry import Collector
from sqlalchemy.exc import SQLAlchemyError

from monitoring import metrics
from monitoring.metrics import Metric
from pipelines.errors import PoisonReason
from pipelines.failures.dependencies import AIRFLOW, KAFKA, model_of
from pipelines.failures.policy import POLICIES
from pipelines.ledger.fold import canonical
from pipelines.ledger.snapshot import Snapshot
from pipelines.ledger.states import UNFINISHED, State
from pipelines.models.authorship import name_of, version_of

#: (error class, hop) that may be.
FAILURES = tuple((error_class.value, hop) for error_class, policy in POLICIES.items() for hop in policy.hops)
POISON_REASONS = tuple(reason.value for reason in PoisonReason)

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Objective:
    """What an installed scenario promises.

    Attributes:
        deadline: seconds from event to written draft.
        share: of the events that are to be drafted within it, between 0 and 1.
        models: of its route, in its order.
        panel: whether it asks them all, rather than the first that is not switched off.
    """

    scenario: str
    stage: str
    version: str
    deadline: float
    share: float = 0.95
    models: tuple[str, ...] = ()
    panel: bool = False

    def asked(self, off: Container[str]) -> tuple[str, ...]:
        """The models that its work needs now; those that are switched off where too few are left."""
        on = tuple(model for model in self.models if model not in off)
        if self.panel:
            return on if len(on) > 1 else self.models
        return on[:1] or self.models


class LedgerCollector(Collector):
    """Turns snapshots of the ledger into metric families.

    Args:
        read: takes a snapshot; raises SQLAlchemyError where the ledger does not answer.
        objectives: of the installed scenarios.
        reconcile_every: source -> seconds between searches for what was never notified; of those that are searched.
        models: name -> version of its weights, of those that are configured.
        servers: model -> host and port where it is asked, of those that are asked at one.
        plugin_counters: that the enabled plugins declare; of others the ledger keeps the numbers and shows none.
        keep: seconds that a snapshot, or its failure, serves further scrapes.
    """

    def __init__(
        self,
        read: Callable[[], Snapshot],
        objectives: Iterable[Objective] = (),
        reconcile_every: Mapping[str, float] = MappingProxyType({}),
        plugin_counters: Iterable[Metric] = (),
        *,
        models: Mapping[str, str] = MappingProxyType({}),
        servers: Mapping[str, str] = MappingProxyType({}),
        keep: float = 0.5,
    ) -> None:
        self._read = read
        self._objectives = tuple(objectives)
        self._reconcile_every = dict(reconcile_every)
        self._models = dict(models)
        self._servers = dict(servers)
        self._folded = (*metrics.FOLDED, *plugin_counters)
        self._keep = keep
        self._lock = Lock()
        self._snapshot: Snapshot | None = None
        self._taken = float("-inf")

    def describe(self) -> Iterator[Family]:
        """Names and types alone, without asking the ledger."""
        return (_family(metric) for metric in metrics.LEDGER.values())

    def collect(self) -> Iterator[Family]:
        """All families; without the ledger only that it is down: an absent counter is true, a 0 would be a lie."""
        now = self._current()
        yield _gauge(metrics.LEDGER_UP, [((), 0.0 if now is None else 1.0)])
        yield from self._configured()
        if now is not None:
            yield from _sums(now)
            yield from _scenarios(now, self._objectives)
            yield from _sources(now, self._reconcile_every)
            yield from _folded(now, self._folded, self._objectives, self._models)

    def _current(self) -> Snapshot | None:
        with self._lock:
            if time.monotonic() - self._taken >= self._keep:
                try:
                    with metrics.SNAPSHOT_DURATION.time():
                        self._snapshot = self._read()
                except SQLAlchemyError as error:
                    log.warning("the ledger does not answer: %s", type(error).__name__)
                    self._snapshot = None
                self._taken = time.monotonic()
            return self._snapshot

    def _configured(self) -> Iterator[Family]:
        yield _gauge(metrics.SCENARIO_DEADLINE, [((o.scenario, o.stage), o.deadline) for o in self._objectives])
        yield _gauge(metrics.SCENARIO_OBJECTIVE, [((o.scenario, o.stage), o.share) for o in self._objectives])
        yield _gauge(metrics.SCENARIO_INFO, [((o.scenario, o.stage, o.version), 1.0) for o in self._objectives])
        yield _gauge(metrics.MODEL_INFO, [(model, 1.0) for model in self._models.items()])
        yield _gauge(metrics.MODEL_SERVER_INFO, [((model_of(m), at), 1.0) for m, at in self._servers.items()])
        yield _gauge(metrics.RECONCILE_INTERVAL, [((s,), every) for s, every in self._reconcile_every.items()])


Values = Iterable[tuple[tuple[str, ...], float]]


def _sums(now: Snapshot) -> Iterator[Family]:
    account = now.account
    outcomes = metrics.RecordOutcome
    yield _counter(
        metrics.LEDGER_RECORDS,
        [
            ((outcomes.EVENT,), account.events),
            ((outcomes.DUPLICATE,), account.duplicates),
            ((outcomes.POISON,), account.poison),
            ((outcomes.MISSING,), account.missing),
        ],
    )
    yield _counter(metrics.LEDGER_MATCHES, [((), account.matches)])
    poison = {s.labels["poison_reason"]: s.value for s in now.samples if s.name == metrics.POISON.name}
    yield _counter(metrics.POISON, [((reason,), poison.get(reason, 0)) for reason in POISON_REASONS])
    fences = {s.labels["outcome"]: s.value for s in now.samples if s.name == metrics.WRITE_FENCES.name}
    yield _counter(metrics.WRITE_FENCES, [((o.value,), fences.get(o.value, 0)) for o in metrics.FenceOutcome])
    untaken = {s.labels["reason"]: s.value for s in now.samples if s.name == metrics.DECISIONS_NOT_TAKEN.name}
    yield _counter(metrics.DECISIONS_NOT_TAKEN, [((o.value,), untaken.get(o.value, 0)) for o in metrics.NotTaken])
    yield _gauge(metrics.POISON_OPEN, [((reason,), now.poison_open.get(reason, 0)) for reason in POISON_REASONS])
    yield _gauge(metrics.UNACCOUNTED, [((), account.unaccounted)])
    yield _gauge(metrics.WORK_UNFOLDED, [((), now.unfolded)])
    yield _gauge(metrics.SWITCHED_OFF, [(switch, 1.0) for switch in now.switches])
    yield _gauge(metrics.DEPENDENCY_DOWN, [((name,), float(down)) for name, down in now.down.items()])


def _scenarios(now: Snapshot, objectives: Iterable[Objective]) -> Iterator[Family]:
    """By scenario; those that are installed stand at 0 from the start, so that their first failure is an increase."""
    zeros = {(o.scenario, *where): 0 for o in objectives for where in FAILURES}
    failures = {**zeros, **now.failures}
    yield _counter(
        metrics.FAILURES,
        [((scenario, stage_of(scenario), *where), n) for (scenario, *where), n in failures.items()],
    )
    yield _gauge(metrics.WORK, [((o.scenario, o.stage, o.state), o.items) for o in now.open_work])
    oldest = {(objective.scenario, objective.stage): 0.0 for objective in objectives}
    reachable = dict(oldest)
    for part in now.open_work:
        key = part.scenario, part.stage
        unfinished = part.state in UNFINISHED
        oldest[key] = max(oldest.get(key, 0.0), part.oldest if unfinished else 0.0)
        reachable[key] = max(reachable.get(key, 0.0), part.reachable if unfinished else 0.0)
    yield _gauge(metrics.OLDEST_UNFINISHED, oldest.items())
    yield _gauge(metrics.OLDEST_REACHABLE, reachable.items())
    yield _gauge(metrics.SCENARIO_NEEDS_INFO, [(needed, 1.0) for needed in sorted(_needed(now, objectives))])


def _needed(now: Snapshot, objectives: Iterable[Objective]) -> set[tuple[str, str, str]]:
    """(scenario, stage, needs): without it no work of this scenario, or not what waits for it, goes on.

    FHIR servers are one value: that work waits for one which is down says enough, and twenty sources, each read and
    written, would be forty series a scenario.
    """
    off = {name for kind, name in now.switches if kind == "model"}
    needed = {(scenario, stage_of(scenario), "fhir") for scenario in now.held}
    for one in objectives:
        for needs in (KAFKA, AIRFLOW, *map(model_of, one.asked(off))):
            needed.add((one.scenario, one.stage, needs))
    return needed


def _sources(now: Snapshot, reconcile_every: Iterable[str]) -> Iterator[Family]:
    yield _counter(metrics.SUBSCRIPTION_GAPS, [((s.source,), s.gaps) for s in now.subscriptions])
    yield _counter(metrics.SUBSCRIPTION_MISSED, [((s.source,), s.missed) for s in now.subscriptions])
    yield _gauge(metrics.SUBSCRIPTION_SEEN, [((s.source,), s.seen) for s in now.subscriptions])
    yield _gauge(metrics.RECONCILED_UNTIL, [((s,), now.reconciled.get(s, 0.0)) for s in reconcile_every])


def _folded(
    now: Snapshot, declared: Iterable[Metric], objectives: Iterable[Objective], models: Mapping[str, str]
) -> Iterator[Family]:
    """What is folded, out of `samples`; of a plugin's counter that has changed its labels, the new ones.

    What every scenario comes to have stands at 0 from the start, so that its first event is an increase.
    """
    by_name: dict[str, list[tuple[Mapping[str, str], float]]] = defaultdict(list)
    known = {(s.name, canonical(s.labels)) for s in now.samples}
    for name, labels in _from_the_start(objectives, models):
        if (name, canonical(labels)) not in known:
            by_name[name].append((labels, 0.0))
    for sample in now.samples:
        by_name[sample.name].append((sample.labels, sample.value))
    for metric in declared:
        if metric.kind == "counter":
            kept = [(labels, value) for labels, value in by_name[metric.name] if labels.keys() == set(metric.labels)]
            yield _counter(metric, [(_values(metric, labels), value) for labels, value in kept])
        elif metric.kind == "gauge":
            yield _gauge(metric, [(_values(metric, labels), max(value, 0.0)) for labels, value in by_name[metric.name]])
        else:
            yield _histogram(metric, by_name[f"{metric.name}_bucket"], by_name[f"{metric.name}_sum"])


def _from_the_start(
    objectives: Iterable[Objective], models: Mapping[str, str]
) -> Iterator[tuple[str, Mapping[str, str]]]:
    """Names in `samples` and labels of what an installed scenario may have after its first draft.

    Of a panel that is when all its members answer: of fewer, the first draft is no increase.
    """
    for objective in objectives:
        where = {"scenario": objective.scenario, "stage": objective.stage}
        versions = {**models, **_panel(objective, models)}
        asked = (metrics.NO_MODEL, *versions)
        yield from ((metrics.DEADLINES.name, {**where, "outcome": o.value}) for o in metrics.DeadlineOutcome)
        yield from ((metrics.WORK_FINISHED.name, {**where, "state": State.WRITTEN, "model": m}) for m in asked)
        yield from ((f"{metrics.HOP_DURATION.name}_sum", {**where, "hop": hop}) for hop in metrics.HOPS)
        yield f"{metrics.EVENT_TO_DRAFT.name}_sum", where
        yield f"{metrics.EVENT_TO_RULE_DRAFT.name}_sum", where
        scenario = {"scenario": objective.scenario}
        yield f"{metrics.DRAFT_TO_DECISION.name}_sum", scenario
        yield metrics.DECISIONS_WAITING.name, scenario
        for model, version in versions.items():
            by = {**scenario, "model": model, "model_version": version}
            yield from ((metrics.DECISIONS.name, {**by, "verdict": v.value}) for v in metrics.DecisionVerdict)
        for model in objective.models:
            by = {**scenario, "model": model}
            yield from ((metric.name, by) for metric in (metrics.MODEL_REQUESTS, metrics.MODEL_SECONDS))
            for kind in sorted(metrics.LABELS["gen_ai_token_type"][0] or ()):
                yield metrics.MODEL_TOKENS_SPENT.name, {**by, "gen_ai_token_type": kind}


def _panel(objective: Objective, models: Mapping[str, str]) -> Mapping[str, str]:
    """What the author of a panel's drafts is called, and its version; nothing where a single model is asked."""
    members = [(name, models[name]) for name in objective.models if name in models]
    if not objective.panel or len(members) < 2:
        return {}
    return {name_of(name for name, _ in members): version_of(members)}


def _histogram(
    metric: Metric, hits: Iterable[tuple[Mapping[str, str], float]], sums: Iterable[tuple[Mapping[str, str], float]]
) -> Family:
    """Buckets as they are kept, each for itself, summed up as Prometheus wants them.

    A bound that is no longer declared keeps its place: a release that changes the buckets loses no observation.
    """
    buckets: dict[tuple[str, ...], dict[float, float]] = {}
    for labels, value in hits:
        series = buckets.setdefault(_values(metric, labels), dict.fromkeys((*metric.buckets, float("inf")), 0.0))
        bound = float(labels["le"])
        series[bound] = series.get(bound, 0.0) + value
    family = HistogramMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, total in sums:
        values = _values(metric, labels)
        running, cumulative = 0.0, []
        for bound, value in sorted(buckets.get(values, dict.fromkeys((*metric.buckets, float("inf")), 0.0)).items()):
            running += value
            cumulative.append((metrics.le(bound), running))
        family.add_metric(values, cumulative, total)
    return family


def stage_of(scenario: str) -> str:
    """The stage in a scenario's id, `<stage>.<name>`."""
    return scenario.partition(".")[0]


def _values(metric: Metric, labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels[label] for label in metric.labels)


def _family(metric: Metric) -> Family:
    kinds: dict[str, Callable[..., Family]] = {
        "counter": CounterMetricFamily,
        "gauge": GaugeMetricFamily,
        "histogram": HistogramMetricFamily,
    }
    return kinds[metric.kind](metric.name, metric.help, labels=metric.labels)


def _gauge(metric: Metric, values: Values) -> Family:
    family = GaugeMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def _counter(metric: Metric, values: Values) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in values:
        family.add_metric(labels, value)
    return family
