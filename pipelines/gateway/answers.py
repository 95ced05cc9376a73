"""What the gateway answers: 204 without a body for what was taken, an OperationOutcome for everything else.

204, because HAPI counts a 200 with a JSON body as a failed delivery and sends the event again; an OperationOutcome
echoes nothing of the body that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import orjson
from sqlalchemy.exc import SQLAlchemyError
from starlette.responses import Response

from fhir_adapters.errors import FhirServerError, MalformedJson, Refused, TooLarge, UnsupportedFormat
from fhir_adapters.operation_outcome import of_problems, of_refusal, outcome
from monitoring.metrics import Refusal
from pipelines.errors import LedgerError
from pipelines.gateway.errors import GatewayRefusal
from pipelines.gateway.reconcile import NotBegun
from pipelines.gateway.submission import ResourceInvalid
from pipelines.kafka.producer import RecordTooLarge
from pipelines.kafka.topics import BrokerUnavailable, TopicUnusable

MEDIA_TYPE = "application/fhir+json"

_REASONS: dict[type[Refused], Refusal] = {
    MalformedJson: Refusal.MALFORMED_JSON,
    TooLarge: Refusal.TOO_LARGE,
    UnsupportedFormat: Refusal.UNSUPPORTED_FORMAT,
}


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is not 2xx.

    Attributes:
        status: HTTP status.
        reason: label of the metric.
        body: an OperationOutcome.
        headers: of the answer.
    """

    status: int
    reason: Refusal
    body: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)

    def response(self) -> Response:
        """For Starlette."""
        return Response(orjson.dumps(self.body), self.status, dict(self.headers), MEDIA_TYPE)


#: What is no fault of the request: type -> reason, seconds to wait, what is wrong. First match counts.
_TRY_AGAIN: tuple[tuple[tuple[type[Exception], ...], Refusal, int, str], ...] = (
    (
        (BrokerUnavailable, TopicUnusable),
        Refusal.BROKER_UNAVAILABLE,
        5,
        "the event could not be made durable, because Kafka did not acknowledge it; send it again",
    ),
    (
        (FhirServerError,),
        Refusal.FHIR_SERVER_UNAVAILABLE,
        5,
        "the FHIR server of this source could not be read, and the notification holds no resource; send it again",
    ),
    (
        (SQLAlchemyError, LedgerError, NotBegun),
        Refusal.LEDGER_UNAVAILABLE,
        5,
        "what changed could not be searched for, because the ledger does not answer or has no start; send it again",
    ),
)


def answer_to(error: Exception) -> Answer:
    """How an error that ended a request is told to the sender; what is not known here is a fault of ours, 500."""
    if isinstance(error, Refused):
        reason = _REASONS.get(type(error), Refusal.NOT_FHIR)
        return Answer(error.status, reason, of_refusal(error))
    if isinstance(error, GatewayRefusal):
        body = outcome("error", error.issue_code, str(error))
        return Answer(error.status, error.reason, body, error.headers)
    if isinstance(error, ResourceInvalid):
        return Answer(422, Refusal.INVALID_RESOURCE, of_problems(error.problems))
    if isinstance(error, RecordTooLarge):
        text = "the broker takes no record of this size; send less at once"
        return Answer(413, Refusal.TOO_LARGE, outcome("error", "too-long", text))
    for types, reason, wait, text in _TRY_AGAIN:
        if isinstance(error, types):
            seconds = max(wait, round(getattr(error, "retry_after", None) or 0))
            return Answer(503, reason, outcome("error", "transient", text), {"Retry-After": str(seconds)})
    return Answer(500, Refusal.INTERNAL, outcome("fatal", "exception", "a fault of the gateway; its log has the place"))


def taken() -> Response:
    """What was taken: nothing more to say."""
    return Response(status_code=204)
