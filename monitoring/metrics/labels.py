"""The closed lists that labels take their values from."""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, get_args

#: The kinds of process that show metrics.
Process = Literal["gateway", "dispatcher", "exporter"]

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


class FenceOutcome(StrEnum):
    """What became of a fence against an older version's transaction."""

    HELD = "held"  # it can no longer be taken, and was not
    WRITTEN_BEFORE = "written_before"  # it was there before: the newer version is written after it
    NOT_HELD = "not_held"  # the server takes what a conforming one refuses
    REFUSED = "refused"  # the server takes no fence


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


class DecisionVerdict(StrEnum):
    """What a person decided on drafts (`fhir_adapters.decision.Verdict`, of which a withdrawal is none)."""

    ACCEPTED = "accepted"
    EDITED = "edited"
    REJECTED = "rejected"


class NotTaken(StrEnum):
    """Why a decision does not count."""

    UNNAMED = "unnamed"  # no person is named
    UNKNOWN = "unknown"  # the ledger knows no such work of this source
    DECIDED_BEFORE = "decided_before"  # another verdict, or a withdrawal, was there first


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
    "model_version": (None, "of the weights that answered; of a panel of each, joined by `; `"),
    "partition": (None, "partitions of the events' topic"),
    "version": (None, "of careloom, of the scenario, or of the model's weights"),
    "python": (None, "version of the interpreter"),
    "process": (frozenset(get_args(Process)), "kind of process"),
    "le": (None, "upper bound of a histogram's bucket"),
    "reason": (frozenset({*Refusal, *NotTaken}), "why a request was refused, or a person's decision not taken"),
    "verdict": (frozenset(DecisionVerdict), "what a person decided on drafts"),
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
        frozenset(
            {
                *RequestOutcome,
                *RecordOutcome,
                *CopyOutcome,
                *PostOutcome,
                *DraftOutcome,
                *DeadlineOutcome,
                *FenceOutcome,
            }
        ),
        "how a request, a record, a POST, a draft, its deadline or a write fence ended",
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
    "needs": (None, "`model:<model>`, `kafka`, `airflow`, or `fhir`, whichever source's: what alerts are related by"),
    "server": (None, "host and port of the configured models' servers"),
    "kind": (frozenset({"everything", "scenario", "model"}), "what a switch stops"),
    "target": (None, "the scenario or model that a switch stops, empty for everything"),
    "gen_ai_operation_name": (frozenset({"chat"}), "OpenTelemetry: the operation"),
    "gen_ai_provider_name": (frozenset({"openai"}), "OpenTelemetry: the API spoken (vLLM's is OpenAI's)"),
    "gen_ai_request_model": (None, "OpenTelemetry: names of the configured models, of a panel joined by `+`"),
    "gen_ai_token_type": (frozenset({"input", "output"}), "OpenTelemetry: prompt or completion"),
    "volume": (None, "names in `exporter.disks`, joined by `+` where they are on one file system, or `state`"),
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
