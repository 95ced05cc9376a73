"""How many series careloom can show at most: every combination of every label's values, in a house of a given size.

Labels that tell the same (a scenario and its stage) go together; the other values are multiplied, whether or not each
combination can occur. So what is counted here is a bound, and a house shows a fraction of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product

from monitoring import metrics
from monitoring.metrics import DECLARED, LABELS, REGISTRIES, Metric
from pipelines.failures.policy import POLICIES
from plugins import manager

#: What all processes may show together in a `Size()`; a change that needs more says so here, and why.
MOST = 50_000
#: `process_*`, which prometheus-client adds for each process.
PROCESS_SERIES = 6

Labels = Mapping[str, str]
#: Labels that tell the same, the first of them all that the others do, with what they can be.
Axis = tuple[tuple[str, ...], Sequence[tuple[str, ...]]]


def _verdicts() -> list[tuple[str, str]]:
    return sorted((guard.id, code) for guard in manager.load().guards for code in guard.codes)


@dataclass(frozen=True, slots=True)
class Size:
    """How large a house is.

    Attributes:
        verdicts: (guard, code) of all guards; the built-in ones' by default.
    """

    scenarios: int = 84
    models: int = 4
    sources: int = 20
    partitions: int = 12
    plugins: int = 10
    volumes: int = 3
    verdicts: Sequence[tuple[str, str]] = field(default_factory=_verdicts)


#: Versions of one model's weights whose drafts are decided on: those that answer now, and those before them.
_WEIGHTS = ("1", "0")

#: Of a label that several metrics share, what one of them can have.
_ONLY: dict[tuple[str, str], Sequence[str]] = {
    ("careloom_gateway_request_duration_seconds", "outcome"): tuple(metrics.RequestOutcome),
    ("careloom_dispatcher_records_total", "outcome"): tuple(metrics.RecordOutcome),
    ("careloom_ledger_records_total", "outcome"): tuple(metrics.RecordOutcome),
    ("careloom_dispatcher_dead_letter_copies_total", "outcome"): tuple(metrics.CopyOutcome),
    ("careloom_dispatcher_airflow_post_duration_seconds", "outcome"): tuple(metrics.PostOutcome),
    ("careloom_dispatcher_airflow_errors_total", "outcome"): tuple(metrics.PostOutcome),
    ("careloom_drafts_total", "outcome"): tuple(metrics.DraftOutcome),
    ("careloom_deadlines_total", "outcome"): tuple(metrics.DeadlineOutcome),
    ("careloom_write_fences_total", "outcome"): tuple(metrics.FenceOutcome),
    ("careloom_gateway_events_refused_total", "reason"): tuple(metrics.Refusal),
    ("careloom_decisions_not_taken_total", "reason"): tuple(metrics.NotTaken),
    ("careloom_model_info", "version"): ("1",),  # each model has one
    ("careloom_work_items", "state"): ("waiting", "dispatched", "running", "inferred", "parked"),
    ("careloom_work_finished_total", "state"): ("written", "stale", "discarded"),
}


def bound(metric: Metric, size: Size) -> int:
    """Series that one metric can have; of a histogram with its buckets, sum and count."""
    sets = sum(1 for _ in combinations(metric, size))
    return sets * (len(metric.buckets) + 3) if metric.kind == "histogram" else sets


def total(size: Size) -> int:
    """Series that all processes can show, what prometheus-client adds included."""
    return sum(bound(metric, size) for metric in DECLARED.values()) + PROCESS_SERIES * len(REGISTRIES)


def combinations(metric: Metric, size: Size) -> Iterator[Labels]:
    """Every set of labels that a metric can have."""
    axes = _axes(metric, size)
    for values in product(*(values for _, values in axes)):
        yield {
            name: value
            for (names, _), part in zip(axes, values, strict=True)
            for name, value in zip(names, part, strict=True)
            if name in metric.labels
        }


def _axes(metric: Metric, size: Size) -> list[Axis]:
    left, axes = set(metric.labels), []
    for names, values in _together(metric, size):
        if names[0] in left:
            axes.append((names, values))
            left -= set(names)
    for name in sorted(left):
        axes.append(((name,), [(value,) for value in _values(metric, name, size)]))
    return axes


def _together(metric: Metric, size: Size) -> list[Axis]:
    """Labels of which the others follow from the first."""
    scenarios = _scenarios(size)
    models = _models(size)
    sources = _sources(size)
    switches = [
        ("everything", ""),
        *(("scenario", name) for name, _, _ in scenarios),
        *(("model", name) for name in models),
    ]
    servers = [(f"model:{name}", f"{name}:8000") for name in models]
    dependencies = [*(f"model:{m}" for m in models), *(f"{way}:{s}" for way in ("fhir", "fhir-write") for s in sources)]
    return [
        (("kind", "target"), switches),
        (("guard", "code"), size.verdicts),
        (("error_class", "hop"), [(error_class, hop) for error_class, p in POLICIES.items() for hop in p.hops]),
        (("scenario", "stage", "version"), scenarios),
        (("model_version", "model"), [(version, name) for name in models for version in _WEIGHTS]),
        *([(("dependency", "server"), servers)] if metric is metrics.MODEL_SERVER_INFO else ()),
        (("dependency",), [(one,) for one in (*dependencies, "kafka", "airflow")]),
        (("process", "version", "python"), [(process, "0.1.0", "3.11") for process in REGISTRIES]),
    ]


def _values(metric: Metric, label: str, size: Size) -> Sequence[str]:
    if only := _ONLY.get((metric.name, label)):
        return only
    fixed = LABELS[label][0]
    if fixed is not None:
        return sorted(fixed)
    of = {
        "source": [*_sources(size), metrics.UNKNOWN_SOURCE],
        "model": [*_models(size), *(() if metric is metrics.MODEL_INFO else (metrics.NO_MODEL,))],
        "gen_ai_request_model": _models(size),
        "partition": [str(number) for number in range(size.partitions)],
        "plugin": [f"plugin-{number}" for number in range(size.plugins)],
        "volume": [f"volume-{number}" for number in range(size.volumes)],
        "currency": ["CNY"],
        "needs": [*(f"model:{name}" for name in _models(size)), "kafka", "airflow", "fhir"],
    }
    return of[label]


def _scenarios(size: Size) -> list[tuple[str, str, str]]:
    stages = sorted(LABELS["stage"][0] or ())
    made = (f"{stages[number % len(stages)]}.scenario_{number}" for number in range(size.scenarios))
    return [(name, name.partition(".")[0], "1") for name in made]


def _models(size: Size) -> list[str]:
    return [f"model-{number}" for number in range(size.models)]


def _sources(size: Size) -> list[str]:
    return [f"source-{number}" for number in range(size.sources)]
