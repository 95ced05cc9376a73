"""Everything that can go wrong on the way of an event.

CareloomError
├── ConfigError         the configuration is wrong: names file, key and remedy
├── StackError          a process of the development stack cannot be started or kept
├── LedgerError
│   ├── IllegalMove     a state change that `pipelines.ledger.states` does not know
│   └── LeaseLost       another worker holds these rows now; nothing may be written for them
├── StepFailed          one step of one piece of work failed; carries an `ErrorClass`, never patient data
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


class AirflowError(CareloomError):
    """Airflow's REST API refused a request."""


class AirflowUnavailable(AirflowError):
    """Airflow's REST API gave no answer, 429 or 5xx: worth another try."""


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


#: Failures of a dependency, not of the event: tried again without counting against the event's own attempts.
TRANSIENT = frozenset(
    {
        ErrorClass.MODEL_UNAVAILABLE,
        ErrorClass.MODEL_TIMEOUT,
        ErrorClass.FHIR_UNAVAILABLE,
        ErrorClass.FHIR_CONFLICT,
        ErrorClass.KAFKA_UNAVAILABLE,
        ErrorClass.WORKER_LOST,
    }
)


class StepFailed(CareloomError):
    """One step of one piece of work failed.

    Attributes:
        error_class: what it means.
        retry_after: seconds to wait before another try, when the dependency said so.

    The message goes into the ledger and to operators: it holds no patient data, and no text of the cause.
    """

    def __init__(self, error_class: ErrorClass, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.error_class = error_class
        self.retry_after = retry_after

    @property
    def transient(self) -> bool:
        """Whether the same event may well succeed later."""
        return self.error_class in TRANSIENT
