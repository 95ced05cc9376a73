"""Every metric that careloom declares. Nothing is declared elsewhere; labels come from closed sets only.

Names follow Prometheus' practice and, for the model, OpenTelemetry's semantic conventions for generative AI. There is
one registry for each kind of process, so that no process shows another's counters at 0:

    GATEWAY, DISPATCHER   counted where it happens, by the process itself; the objects below are what it calls
    EXPORTER              what short-lived Airflow tasks did, read from the ledger; see `LEDGER` and
                          `monitoring.ledger_collector`: exact, and never going back when a task is killed

`docs/metrics.md` is written from this file by `python -m monitoring.reference`.
"""

from __future__ import annotations

import platform
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from importlib.metadata import PackageNotFoundError, version
from threading import Thread
from typing import Literal
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

disable_created_metrics()  # type: ignore[no-untyped-call]

GATEWAY = CollectorRegistry(auto_describe=True)
DISPATCHER = CollectorRegistry(auto_describe=True)
EXPORTER = CollectorRegistry(auto_describe=True)

Process = Literal["gateway", "dispatcher", "exporter"]
REGISTRIES: dict[Process, CollectorRegistry] = {"gateway": GATEWAY, "dispatcher": DISPATCHER, "exporter": EXPORTER}

#: Seconds from 0.05 to an hour: a rule answers in tenths, a model in seconds, a queue in minutes.
LATENCY_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 1800.0, 3600.0)
#: Seconds of one HTTP request to or from a server nearby.
REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: OpenTelemetry's advice for gen_ai.client.operation.duration (semantic conventions 1.37).
MODEL_BUCKETS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
#: OpenTelemetry's advice for gen_ai.client.token.usage, as far as a context window reaches.
TOKEN_BUCKETS = (1.0, 4.0, 16.0, 64.0, 256.0, 1024.0, 4096.0, 16384.0, 65536.0)
BATCH_BUCKETS = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)

#: In place of a source that is not configured: what a stranger writes into a path never becomes a label.
UNKNOWN_SOURCE = "unknown"
#: In place of a model where none was asked.
NO_MODEL = "none"


class Refusal(StrEnum):
    """Why the gateway refused a request."""

    UNAUTHORIZED = "unauthorized"
    UNKNOWN_SOURCE = "unknown_source"
    MALFORMED_JSON = "malformed_json"
    NOT_FHIR = "not_fhir"
    INVALID_RESOURCE = "invalid_resource"
    TOO_LARGE = "too_large"
    UNSUPPORTED_FORMAT = "unsupported_format"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    NOT_FOUND = "not_found"
    TOO_SLOW = "too_slow"
    OVERLOADED = "overloaded"
    BROKER_UNAVAILABLE = "broker_unavailable"
    FHIR_SERVER_UNAVAILABLE = "fhir_server_unavailable"
    LEDGER_UNAVAILABLE = "ledger_unavailable"
    INTERNAL = "internal"


class Way(StrEnum):
    """By which way an event came into the gateway."""

    SUBSCRIPTION = "subscription"
    REST_HOOK = "rest_hook"
    POST = "post"
    RECONCILE = "reconcile"


class RequestOutcome(StrEnum):
    """How a request to the gateway ended: 2xx, 4xx, 5xx."""

    TAKEN = "taken"
    REFUSED = "refused"
    FAILED = "failed"


class RecordOutcome(StrEnum):
    """What became of one Kafka record."""

    EVENT = "event"
    DUPLICATE = "duplicate"
    POISON = "poison"
    MISSING = "missing"


class CopyOutcome(StrEnum):
    """What became of the copy of a record that is no event."""

    COPIED = "copied"
    REFUSED = "refused"


class PostOutcome(StrEnum):
    """What Airflow said to a run: 200, 409, any other 4xx, or no answer, 429 and 5xx."""

    CREATED = "created"
    EXISTS = "exists"
    REFUSED = "refused"
    UNAVAILABLE = "unavailable"


class DraftOutcome(StrEnum):
    """What the FHIR server said to a draft: new, or there already from an earlier try."""

    CREATED = "created"
    RECOGNISED = "recognised"


class DeadlineOutcome(StrEnum):
    """Whether a draft was there in time."""

    MET = "met"
    MISSED = "missed"


#: OpenTelemetry's attributes that are the same for every call of a model: vLLM speaks OpenAI's API.
GEN_AI = {"gen_ai_operation_name": "chat", "gen_ai_provider_name": "openai"}

#: The hops of one piece of work in their order; each is named by the time that ends it (`<hop>_at` in the ledger).
HOPS = ("durable", "matched", "dispatched", "started", "context", "answered", "guarded", "written")

#: Every label there is, its values where they are fixed, else None and where they come from.
LABELS: dict[str, tuple[frozenset[str] | None, str]] = {
    "source": (None, "names of the configured sources, or `unknown`"),
    "scenario": (None, "ids of the installed scenarios, and of those that once were"),
    "stage": (frozenset({"pre_visit", "in_visit", "post_visit"}), "stage of care"),
    "model": (None, "names of the configured models, of a panel joined by `+`, or `none`"),
    "partition": (None, "partitions of the events' topic"),
    "version": (None, "of careloom, or of the scenario"),
    "python": (None, "version of the interpreter"),
    "process": (frozenset(REGISTRIES), "kind of process"),
    "le": (None, "upper bound of a histogram's bucket"),
    "reason": (frozenset(Refusal), "why a request was refused"),
    "poison_reason": (
        frozenset(
            {
                "tombstone",
                "no_envelope",
                "wrong_envelope",
                "wrong_key",
                "not_json",
                "not_a_resource",
                "too_deep",
                "not_storable",
                "unreadable",
            }
        ),
        "why a Kafka record is no event (`pipelines.errors.PoisonReason`)",
    ),
    "way": (frozenset(Way), "by which way an event came in"),
    "outcome": (
        frozenset({*RequestOutcome, *RecordOutcome, *CopyOutcome, *PostOutcome, *DraftOutcome, *DeadlineOutcome}),
        "how a request, a record, a POST, a draft or its deadline ended",
    ),
    "state": (
        frozenset({"waiting", "dispatched", "running", "inferred", "parked", "written", "stale", "discarded"}),
        "state of a piece of work (`pipelines.ledger.states`)",
    ),
    "error_class": (
        frozenset(
            {
                "model_unavailable",
                "model_timeout",
                "model_rejected",
                "model_invalid_output",
                "fhir_unavailable",
                "fhir_rejected",
                "fhir_conflict",
                "kafka_unavailable",
                "payload_gone",
                "payload_invalid",
                "scenario_error",
                "scenario_missing",
                "deadline",
                "worker_lost",
                "internal",
            }
        ),
        "what a failure means (`pipelines.errors.ErrorClass`)",
    ),
    "hop": (frozenset(HOPS), "part of the way, named by what ends it"),
    "dependency": (
        None,
        "`model:<model>`, `fhir:<source>` (reading), `fhir-write:<source>`, `kafka`, `airflow`",
    ),
    "kind": (frozenset({"everything", "scenario", "model"}), "what a switch stops"),
    "target": (None, "the scenario or model that a switch stops, empty for everything"),
    "gen_ai_operation_name": (frozenset({"chat"}), "OpenTelemetry: the operation"),
    "gen_ai_provider_name": (frozenset({"openai"}), "OpenTelemetry: the API spoken (vLLM's is OpenAI's)"),
    "gen_ai_request_model": (None, "OpenTelemetry: names of the configured models, of a panel joined by `+`"),
    "gen_ai_token_type": (frozenset({"input", "output"}), "OpenTelemetry: prompt or completion"),
    "currency": (None, "ISO 4217, of the configured models' prices"),
    "guard": (None, "ids of the installed guards, and of those that once were"),
    "code": (None, "what a guard can find wrong; each guard declares its own"),
    "action": (frozenset({"cut", "flag"}), "whether a statement was taken out, or its reader told"),
    "plugin": (None, "names of the enabled plugins"),
    "hook": (
        frozenset({"careloom_before_infer", "careloom_after_infer", "careloom_on_failure"}),
        "a lifecycle hook (`plugins.hookspecs`)",
    ),
}


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


def _declare(metric: Metric) -> Metric:
    if metric.name in DECLARED:
        raise ValueError(f"{metric.name} is declared twice")
    unknown = [label for label in metric.labels if label not in LABELS]
    if unknown:
        raise ValueError(f"{metric.name}: labels {unknown} are not in LABELS, the closed list")
    DECLARED[metric.name] = metric
    return metric


def _counter(process: Process, name: str, help_: str, *labels: str) -> Counter:
    _declare(Metric(name, "counter", help_, labels, process))
    return Counter(name, help_, labels, registry=REGISTRIES[process])


def _gauge(process: Process, name: str, help_: str, *labels: str) -> Gauge:
    _declare(Metric(name, "gauge", help_, labels, process))
    return Gauge(name, help_, labels, registry=REGISTRIES[process])


def _histogram(process: Process, name: str, help_: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
    _declare(Metric(name, "histogram", help_, labels, process, buckets))
    return Histogram(name, help_, labels, registry=REGISTRIES[process], buckets=buckets)


def _ledger(
    kind: Literal["counter", "gauge", "histogram"],
    name: str,
    help_: str,
    *labels: str,
    buckets: tuple[float, ...] = (),
) -> Metric:
    LEDGER[name] = _declare(Metric(name, kind, help_, labels, "exporter", buckets))
    return LEDGER[name]


# --- gateway -------------------------------------------------------------------------------------------------------

EVENTS_RECEIVED = _counter(
    "gateway", "careloom_gateway_events_received_total", "Events that came in, new or not.", "source", "way"
)
EVENTS_PRODUCED = _counter(
    "gateway", "careloom_gateway_events_produced_total", "Events that Kafka has acknowledged (acks=all).", "source"
)
EVENTS_REFUSED = _counter(
    "gateway", "careloom_gateway_events_refused_total", "Requests answered with 4xx or 5xx.", "source", "reason"
)
REQUEST_DURATION = _histogram(
    "gateway",
    "careloom_gateway_request_duration_seconds",
    "From the request's last byte to the answer; taken ones wait for Kafka.",
    REQUEST_BUCKETS,
    "source",
    "outcome",
)
VALIDATION_PROBLEMS = _counter(
    "gateway",
    "careloom_gateway_validation_problems_total",
    "Resources that are not valid FHIR, taken or not.",
    "source",
)
OWN_DRAFTS_IGNORED = _counter(
    "gateway",
    "careloom_gateway_own_drafts_ignored_total",
    "Notifications of what careloom itself wrote; they start nothing.",
    "source",
)
EVENT_NUMBER_GAPS = _counter(
    "gateway", "careloom_gateway_event_number_gaps_total", "Times that a subscription's event number jumped.", "source"
)
EVENTS_MISSED = _counter(
    "gateway",
    "careloom_gateway_events_missed_total",
    "Event numbers that were jumped over, to be searched for.",
    "source",
)
SUBSCRIPTION_ERRORS = _counter(
    "gateway",
    "careloom_gateway_subscription_errors_total",
    "Notifications in which the server says that its subscription is in error.",
    "source",
)
RECONCILE_FOUND = _counter(
    "gateway", "careloom_gateway_reconcile_found_total", "Events found by a search that were never notified.", "source"
)
RECONCILE_ERRORS = _counter(
    "gateway", "careloom_gateway_reconcile_errors_total", "Searches for what was never notified that failed.", "source"
)
RECONCILE_LAST_SUCCESS = _gauge(
    "gateway",
    "careloom_gateway_reconcile_last_success_timestamp_seconds",
    "When such a search last went through (Unix time); absent until the first.",
    "source",
)

# --- dispatcher ----------------------------------------------------------------------------------------------------

RECORDS_CONSUMED = _counter(
    "dispatcher",
    "careloom_dispatcher_records_total",
    "Kafka records consumed since the start, by what they were.",
    "outcome",
)
CONSUMER_LAG = _gauge(
    "dispatcher",
    "careloom_dispatcher_consumer_lag_records",
    "Records in Kafka that are not in the ledger yet.",
    "partition",
)
READING_HELD_BACK = _gauge(
    "dispatcher",
    "careloom_dispatcher_reading_held_back",
    "1 while Kafka is not read because too much waits in the ledger, else 0.",
)
BROKER_REWINDS = _counter(
    "dispatcher",
    "careloom_dispatcher_broker_rewinds_total",
    "Times that a partition ended before the ledger's offset: the broker lost data or the topic was made anew.",
)
DEAD_LETTER_COPIES = _counter(
    "dispatcher",
    "careloom_dispatcher_dead_letter_copies_total",
    "Copies of records that are no events, by whether the dead-letter topic took them.",
    "outcome",
)
BATCH_SIZE = _histogram(
    "dispatcher",
    "careloom_dispatcher_batch_items",
    "Pieces of work given to one Airflow run.",
    BATCH_BUCKETS,
    "scenario",
)
AIRFLOW_POST_DURATION = _histogram(
    "dispatcher",
    "careloom_dispatcher_airflow_post_duration_seconds",
    "One POST of a run to Airflow's REST API.",
    REQUEST_BUCKETS,
    "outcome",
)
AIRFLOW_ERRORS = _counter(
    "dispatcher", "careloom_dispatcher_airflow_errors_total", "Requests to Airflow's REST API that failed.", "outcome"
)
OPEN_RUNS = _gauge(
    "dispatcher", "careloom_dispatcher_open_runs", "Airflow runs with unfinished work, by the ledger.", "scenario"
)
SCENARIO_PAUSED = _gauge(
    "dispatcher",
    "careloom_dispatcher_scenario_paused",
    "1 while the scenario's DAG is paused in Airflow, else 0.",
    "scenario",
)
SCENARIO_NOT_INSTALLED = _gauge(
    "dispatcher",
    "careloom_dispatcher_scenario_not_installed",
    "1 while work waits for a scenario that is not installed or has no DAG in Airflow, else 0.",
    "scenario",
)

# --- exporter: the process itself ----------------------------------------------------------------------------------

FOLDED_ROWS = _counter(
    "exporter", "careloom_exporter_folded_rows_total", "Finished rows folded into samples since the start."
)
FOLD_ERRORS = _counter(
    "exporter", "careloom_exporter_fold_errors_total", "Folds that failed; the next one makes up for it."
)
FOLD_LAST_SUCCESS = _gauge(
    "exporter",
    "careloom_exporter_fold_last_success_timestamp_seconds",
    "When a fold last went through (Unix time); 0 before the first.",
)
SNAPSHOT_DURATION = _histogram(
    "exporter",
    "careloom_exporter_snapshot_duration_seconds",
    "Reading the ledger for one scrape; does not grow with finished rows.",
    REQUEST_BUCKETS,
)

# --- exporter: the ledger ------------------------------------------------------------------------------------------

LEDGER_UP = _ledger("gauge", "careloom_ledger_up", "1 when the ledger answered this scrape, else 0.")
LEDGER_RECORDS = _ledger(
    "counter",
    "careloom_ledger_records_total",
    "Kafka records in the ledger, by what they were; never goes back.",
    "outcome",
)
POISON = _ledger(
    "counter",
    "careloom_poison_records_total",
    "Kafka records that are no events, by why; never goes back.",
    "poison_reason",
)
POISON_OPEN = _ledger(
    "gauge",
    "careloom_poison_open_records",
    "Records that are no events and that nobody has decided on.",
    "poison_reason",
)
LEDGER_MATCHES = _ledger("counter", "careloom_ledger_matches_total", "Pieces of work that events were to become.")
UNACCOUNTED = _ledger(
    "gauge", "careloom_unaccounted_items", "Records and pieces of work that are nowhere; anything but 0 is a fault."
)
WORK = _ledger("gauge", "careloom_work_items", "Unfinished and parked pieces of work.", "scenario", "stage", "state")
WORK_UNFOLDED = _ledger(
    "gauge", "careloom_work_unfolded_items", "Finished pieces of work that are not yet in the counters below."
)
OLDEST_UNFINISHED = _ledger(
    "gauge",
    "careloom_oldest_unfinished_age_seconds",
    "Age of the oldest unfinished piece of work since its event was received; 0 where none is unfinished.",
    "scenario",
    "stage",
)
SCENARIO_DEADLINE = _ledger(
    "gauge",
    "careloom_scenario_deadline_seconds",
    "The scenario's deadline: from event to written draft.",
    "scenario",
    "stage",
)
SCENARIO_OBJECTIVE = _ledger(
    "gauge",
    "careloom_scenario_objective_ratio",
    "The scenario's objective: the share of its events that are to be drafted within that time.",
    "scenario",
    "stage",
)
SCENARIO_INFO = _ledger(
    "gauge", "careloom_scenario_info", "1 for each installed scenario.", "scenario", "stage", "version"
)
WORK_FINISHED = _ledger(
    "counter", "careloom_work_finished_total", "Pieces of work that are done.", "scenario", "stage", "state", "model"
)
DEADLINES = _ledger(
    "counter",
    "careloom_deadlines_total",
    "Pieces of work drafted within their scenario's deadline, or not; a late one counts when its deadline passes.",
    "scenario",
    "stage",
    "outcome",
)
FAILURES = _ledger(
    "counter", "careloom_failures_total", "Tries that failed, by what it means.", "scenario", "stage", "error_class"
)
HOP_DURATION = _ledger(
    "histogram",
    "careloom_hop_duration_seconds",
    "Each part of the way of written work; `started` holds the waits between tries.",
    "scenario",
    "stage",
    "hop",
    buckets=LATENCY_BUCKETS,
)
EVENT_TO_DRAFT = _ledger(
    "histogram",
    "careloom_event_to_draft_seconds",
    "From the event's receipt to its written drafts.",
    "scenario",
    "stage",
    buckets=LATENCY_BUCKETS,
)
EVENT_TO_RULE_DRAFT = _ledger(
    "histogram",
    "careloom_event_to_rule_draft_seconds",
    "From the event's receipt to drafts that rest on rules alone, written before the model is asked.",
    "scenario",
    "stage",
    buckets=LATENCY_BUCKETS,
)
MODEL_DURATION = _ledger(
    "histogram",
    "gen_ai_client_operation_duration_seconds",
    "The model's time for the answer that counted.",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "scenario",
    buckets=MODEL_BUCKETS,
)
MODEL_TOKENS = _ledger(
    "histogram",
    "gen_ai_client_token_usage",
    "Tokens of the answer that counted and of its prompt.",
    "gen_ai_operation_name",
    "gen_ai_provider_name",
    "gen_ai_request_model",
    "gen_ai_token_type",
    "scenario",
    buckets=TOKEN_BUCKETS,
)
MODEL_REQUESTS = _ledger(
    "counter",
    "careloom_model_requests_total",
    "Questions that a model answered, in tries that failed too.",
    "model",
    "scenario",
)
MODEL_TOKENS_SPENT = _ledger(
    "counter",
    "careloom_model_tokens_total",
    "Tokens of all answers and of their prompts, in tries that failed too.",
    "model",
    "scenario",
    "gen_ai_token_type",
)
MODEL_SECONDS = _ledger(
    "counter",
    "careloom_model_seconds_total",
    "The models' time for all answers, in tries that failed too.",
    "model",
    "scenario",
)
MODEL_COST = _ledger(
    "counter",
    "careloom_model_cost_total",
    "What all answers cost by the configured prices.",
    "model",
    "scenario",
    "currency",
)
GUARD_VERDICTS = _ledger(
    "counter",
    "careloom_guard_verdicts_total",
    "What guards found wrong with answers, by what became of it.",
    "scenario",
    "guard",
    "code",
    "action",
)
HOOK_ERRORS = _ledger(
    "counter",
    "careloom_plugin_hook_errors_total",
    "Lifecycle hooks of plugins that failed, or counted what they had not declared.",
    "plugin",
    "hook",
    "scenario",
)
FINDINGS = _ledger("counter", "careloom_findings_total", "What rules found without a model.", "scenario", "stage")
STATEMENTS_CUT = _ledger(
    "counter",
    "careloom_statements_cut_total",
    "Statements of a model that the record does not support.",
    "scenario",
    "stage",
)
DRAFTS = _ledger("counter", "careloom_drafts_total", "Resources at the FHIR server.", "scenario", "stage", "outcome")
DEPENDENCY_DOWN = _ledger(
    "gauge",
    "careloom_dependency_down",
    "1 while a dependency counts as down and what needs it waits in the ledger, else 0.",
    "dependency",
)
SWITCHED_OFF = _ledger("gauge", "careloom_switched_off", "1 for whatever a person has switched off.", "kind", "target")
SUBSCRIPTION_GAPS = _ledger(
    "counter", "careloom_subscription_gaps_total", "Gaps in the event numbers of a source's subscriptions.", "source"
)
SUBSCRIPTION_MISSED = _ledger(
    "counter", "careloom_subscription_missed_events_total", "Event numbers of a source that were jumped over.", "source"
)
SUBSCRIPTION_SEEN = _ledger(
    "gauge",
    "careloom_subscription_last_seen_timestamp_seconds",
    "When a numbered notification of the source last came (Unix time).",
    "source",
)
RECONCILED_UNTIL = _ledger(
    "gauge",
    "careloom_reconciled_until_timestamp_seconds",
    "Up to when the source was searched for what was never notified (Unix time); 0 where it never was.",
    "source",
)
RECONCILE_INTERVAL = _ledger(
    "gauge",
    "careloom_reconcile_interval_seconds",
    "How often the source is to be searched, by configuration.",
    "source",
)

#: Those of `LEDGER` that finished rows are folded into (`pipelines.ledger.fold`).
FOLDED = (
    WORK_FINISHED,
    DEADLINES,
    FINDINGS,
    STATEMENTS_CUT,
    DRAFTS,
    HOP_DURATION,
    EVENT_TO_DRAFT,
    EVENT_TO_RULE_DRAFT,
    MODEL_DURATION,
    MODEL_TOKENS,
    MODEL_REQUESTS,
    MODEL_TOKENS_SPENT,
    MODEL_SECONDS,
    MODEL_COST,
    GUARD_VERDICTS,
    HOOK_ERRORS,
)


def le(bound: float) -> str:
    """A bucket's upper bound as its label says it."""
    return str(floatToGoString(bound))  # type: ignore[no-untyped-call]


# --- build info, and how to serve it all ---------------------------------------------------------------------------


def _version() -> str:
    try:
        return version("careloom")
    except PackageNotFoundError:
        return "unknown"


_declare(Metric("careloom_build_info", "gauge", "1; what runs.", ("version", "python", "process"), "gateway"))
for _process, _registry in REGISTRIES.items():
    ProcessCollector(registry=_registry)
    Gauge("careloom_build_info", "1; what runs.", ("version", "python", "process"), registry=_registry).labels(
        _version(), platform.python_version(), _process
    ).set(1)


def expect_sources(names: Iterable[str]) -> None:
    """Show the gateway's counters of these sources at 0 from the start, so that their first increase is seen.

    Args:
        names: of the configured sources.
    """
    for name in names:
        for way in Way:
            EVENTS_RECEIVED.labels(name, way)
        for counter in (
            EVENTS_PRODUCED,
            VALIDATION_PROBLEMS,
            OWN_DRAFTS_IGNORED,
            EVENT_NUMBER_GAPS,
            EVENTS_MISSED,
            SUBSCRIPTION_ERRORS,
            RECONCILE_FOUND,
            RECONCILE_ERRORS,
        ):
            counter.labels(name)


def exposition(registry: CollectorRegistry, accept: str = "") -> tuple[bytes, str]:
    """A /metrics page for an ASGI handler.

    Args:
        registry: of the process.
        accept: the request's Accept header.

    Returns:
        body and Content-Type.
    """
    encoder, content_type = choose_encoder(accept)
    return encoder(registry), content_type


def serve(registry: CollectorRegistry, port: int, host: str = "127.0.0.1") -> tuple[WSGIServer, Thread]:
    """Serve a registry's /metrics from a daemon thread; end it by `server.shutdown()`, `server.server_close()`.

    Raises:
        OSError: the port is taken.
    """
    return start_http_server(port, addr=host, registry=registry)
