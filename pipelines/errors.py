"""Everything that can go wrong on the way of an event.

CareloomError
├── ConfigError         the configuration is wrong: names file, key and remedy
├── StackError          a process of the development stack cannot be started or kept
├── LedgerError
│   ├── IllegalMove     a state change that `pipelines.ledger.states` does not know
│   ├── ReadBeforeRewind   records that were read before their partition was rewound; they are read again
│   └── LeaseLost       another worker holds these rows now; nothing may be written for them
├── StepFailed          one step of one piece of work failed; carries an `ErrorClass`, never patient data
├── Waits               nothing failed: a piece of work has to wait for a dependency or for its patient's turn
├── AirflowError        Airflow's API did not do what was asked
│   └── AirflowUnavailable   no answer, 429 or 5xx
└── PayloadGone         the event's bytes are no longer in Kafka
"""

from __future__ import annotations

from enum import StrEnum


class CareloomError(Exception):
    """Root of this package's errors."""


class ConfigError(CareloomError):
    """The configuration is wrong; the message names the file, the key and what to do."""


class StackError(CareloomError):
    """A part of the development stack cannot be started or kept running."""


class LedgerError(CareloomError):
    """The ledger was asked for something it does not allow."""


class IllegalMove(LedgerError):
    """A state change that is not in `pipelines.ledger.states.MOVES`."""


class LeaseLost(LedgerError):
    """The rows are no longer leased to the caller: it was thought dead and another worker took over."""


class ReadBeforeRewind(LedgerError):
    """These records were read before their partition was rewound: their offsets mean nothing any more."""


class AirflowError(CareloomError):
    """Airflow's REST API refused a request."""


class AirflowUnavailable(AirflowError):
    """Airflow's REST API gave no answer, 429 or 5xx: worth another try.

    Attributes:
        retry_after: seconds to wait before it, when Airflow said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class PayloadGone(CareloomError):
    """Kafka no longer holds the event's bytes (retention, or a broker that lost its data)."""


class ErrorClass(StrEnum):
    """What a failure means: a closed set, used as metric label, ledger column and in messages."""

    MODEL_UNAVAILABLE = "model_unavailable"
    MODEL_TIMEOUT = "model_timeout"
    MODEL_REJECTED = "model_rejected"
    MODEL_INVALID_OUTPUT = "model_invalid_output"
    FHIR_UNAVAILABLE = "fhir_unavailable"
    FHIR_REJECTED = "fhir_rejected"
    FHIR_CONFLICT = "fhir_conflict"
    KAFKA_UNAVAILABLE = "kafka_unavailable"
    PAYLOAD_GONE = "payload_gone"
    PAYLOAD_INVALID = "payload_invalid"
    SCENARIO_ERROR = "scenario_error"
    SCENARIO_MISSING = "scenario_missing"
    DEADLINE = "deadline"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal"


class PoisonReason(StrEnum):
    """Why a Kafka record is no event: a closed set, used as metric label, ledger column and in the copy's header."""

    TOMBSTONE = "tombstone"  # it has no value, and its envelope says that something was written
    NO_ENVELOPE = "no_envelope"  # a header of the envelope is missing
    WRONG_ENVELOPE = "wrong_envelope"  # a header is there and cannot be what it should be
    WRONG_KEY = "wrong_key"  # its key is no patient's key of ours
    NOT_JSON = "not_json"  # its value cannot be parsed
    NOT_A_RESOURCE = "not_a_resource"  # its value is JSON and no object
    TOO_DEEP = "too_deep"  # its value is nested beyond what can be read
    NOT_STORABLE = "not_storable"  # PostgreSQL cannot keep what its envelope says
    UNREADABLE = "unreadable"  # its batch is corrupt, or reading it failed in a way that nobody thought of


class StepFailed(CareloomError):
    """One step of one piece of work failed. What that means is told by `pipelines.failures.policy`.

    Attributes:
        error_class: what it means.
        retry_after: seconds to wait before another try, when the dependency said so.
        writing: whether a FHIR server failed at writing; its reading may well work.
        dependency: whose breaker it feeds, where that is not told by the class alone (one of several models).

    The message goes into the ledger and to operators: it holds no patient data, and no text of the cause.
    """

    def __init__(
        self,
        error_class: ErrorClass,
        message: str,
        *,
        retry_after: float | None = None,
        writing: bool = False,
        dependency: str | None = None,
    ) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.retry_after = retry_after
        self.writing = writing
        self.dependency = dependency


class Waits(CareloomError):
    """A piece of work cannot go on now, and nothing failed: it costs no attempt and counts as no failure.

    Attributes:
        dependency: what it waits for; None where it waits for its patient's turn, or for a switch.
        rules_ran: whether its rules have run, and red flags are written.
    """

    def __init__(self, message: str, *, dependency: str | None = None, rules_ran: bool = False) -> None:
        super().__init__(message)
        self.dependency = dependency
        self.rules_ran = rules_ran
