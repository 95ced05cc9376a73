"""What a declaration is, the registries, and the buckets of histograms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics
from prometheus_client.utils import floatToGoString

from monitoring.metrics.labels import LABELS, Process

disable_created_metrics()  # type: ignore[no-untyped-call]

REGISTRIES: dict[Process, CollectorRegistry] = {
    process: CollectorRegistry(auto_describe=True) for process in get_args(Process)
}
GATEWAY, DISPATCHER, EXPORTER = REGISTRIES["gateway"], REGISTRIES["dispatcher"], REGISTRIES["exporter"]

#: Seconds from 0.05 to an hour: a rule answers in tenths, a model in seconds, a queue in minutes.
LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
#: Seconds of one HTTP request to or from a server nearby.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: OpenTelemetry's advice for gen_ai.client.operation.duration (semantic conventions 1.37), but its first.
MODEL_BUCKETS = (0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
#: OpenTelemetry's advice for gen_ai.client.token.usage, as far as a context window reaches, but its first: no answer.
TOKEN_BUCKETS = (4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)
#: Seconds from a minute to a week: who decides is at the bedside, at the desk, or comes back after the weekend.
DECISION_BUCKETS = (60.0, 300.0, 900.0, 3600.0, 14400.0, 43200.0, 86400.0, 259200.0, 604800.0)
#: Pieces of work in one run; `dispatcher.batch_size` is 100 as shipped, and 1,000 at most.
BATCH_BUCKETS = (1.0, 5.0, 20.0, 100.0, 500.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One declaration.

    Attributes:
        name: as Prometheus shows it; of a histogram without `_bucket`, `_sum`, `_count`.
        kind: its Prometheus type.
        help: one sentence for the operator.
        labels: keys of `LABELS`, in order.
        process: whose /metrics shows it.
        buckets: upper bounds of a histogram, without +Inf.
    """

    name: str
    kind: Literal["counter", "gauge", "histogram"]
    help: str
    labels: tuple[str, ...]
    process: Process
    buckets: tuple[float, ...] = ()


#: All declarations by name.
DECLARED: dict[str, Metric] = {}
#: Those that `monitoring.ledger_collector` reads from the ledger.
LEDGER: dict[str, Metric] = {}


def declare(metric: Metric) -> Metric:
    """Enter a declaration.

    Raises:
        ValueError: its name is taken, or a label is not in the closed list.
    """
    if metric.name in DECLARED:
        raise ValueError(f"{metric.name} is declared twice")
    unknown = [label for label in metric.labels if label not in LABELS]
    if unknown:
        raise ValueError(f"{metric.name}: labels {unknown} are not in LABELS, the closed list")
    DECLARED[metric.name] = metric
    return metric


def counter(process: Process, name: str, help_: str, *labels: str) -> Counter:
    """A counter that a process increments itself."""
    declare(Metric(name, "counter", help_, labels, process))
    return Counter(name, help_, labels, registry=REGISTRIES[process])


def gauge(process: Process, name: str, help_: str, *labels: str) -> Gauge:
    """A gauge that a process sets itself."""
    declare(Metric(name, "gauge", help_, labels, process))
    return Gauge(name, help_, labels, registry=REGISTRIES[process])


def histogram(process: Process, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    """A histogram that a process observes itself."""
    declare(Metric(name, "histogram", help_, labels, process, buckets))
    return Histogram(name, help_, labels, registry=REGISTRIES[process], buckets=buckets)


def ledger(
    kind: Literal["counter", "gauge", "histogram"],
    name: str,
    help_: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
) -> Metric:
    """A metric that the exporter reads from the ledger."""
    LEDGER[name] = declare(Metric(name, kind, help_, labels, "exporter", buckets))
    return LEDGER[name]


def le(bound: float) -> str:
    """A bucket's upper bound as its label says it."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]
