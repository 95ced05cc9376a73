"""What the gateway answers when it does not take a request: one class a reason, each with its HTTP status.

    GatewayRefusal
    ├── Unauthorized      401  no token, a wrong one, or no such source: all the same
    ├── NoSuchPlace       404
    ├── WrongMethod       405
    ├── BodyTooSlow       408
    ├── NoWayToRead       422  an id-only or empty notification of a source that has no base_url
    └── Overloaded        503  too many requests are under way already

What `fhir_adapters`, `pipelines.kafka.producer`, and `submission` and `reconcile` here raise is answered as
`pipelines.gateway.answers` lists it.
"""

from __future__ import annotations

from monitoring.metrics import Refusal


class GatewayRefusal(Exception):
    """A request that the gateway itself refuses.

    Attributes:
        status: HTTP status of the answer.
        issue_code: `OperationOutcome.issue.code` (http://hl7.org/fhir/issue-type).
        reason: label of the metric.
        headers: of the answer.
    """

    status = 400
    issue_code = "invalid"
    reason = Refusal.NOT_FHIR
    headers: dict[str, str] = {}  # noqa: RUF012 read only

    def __init__(self, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        if headers is not None:
            self.headers = headers


class Unauthorized(GatewayRefusal):
    """No valid token for a source of this name."""

    status = 401
    issue_code = "login"
    reason = Refusal.UNAUTHORIZED
    headers = {"WWW-Authenticate": "Bearer"}  # noqa: RUF012 read only

    def __init__(self) -> None:
        super().__init__("no valid bearer token for this source; see `token` of the source in careloom.toml")


class NoSuchPlace(GatewayRefusal):
    """Nothing is served at this path."""

    status = 404
    issue_code = "not-found"
    reason = Refusal.NOT_FOUND


class WrongMethod(GatewayRefusal):
    """The path is right, the method is not."""

    status = 405
    issue_code = "not-supported"
    reason = Refusal.METHOD_NOT_ALLOWED


class BodyTooSlow(GatewayRefusal):
    """The body did not come in time."""

    status = 408
    issue_code = "timeout"
    reason = Refusal.TOO_SLOW


class NoWayToRead(GatewayRefusal):
    """The notification holds no resources and there is no server to read them from."""

    status = 422
    issue_code = "not-supported"
    reason = Refusal.NOT_FHIR


class Overloaded(GatewayRefusal):
    """Too many requests are under way."""

    status = 503
    issue_code = "throttled"
    reason = Refusal.OVERLOADED
    headers = {"Retry-After": "1"}  # noqa: RUF012 read only
