"""Everything that can go wrong while a hospital's bytes become events, or drafts become its resources.

    AdapterError
    ├── Refused                the sender sent something that cannot be taken; carries the HTTP status of the answer
    │   ├── MalformedJson      400  not JSON, or JSON that two readers would read differently
    │   ├── NotFhir            422  JSON or XML, but not the FHIR resource that this place takes
    │   ├── TooLarge           413  over the limit, also after decompression
    │   └── UnsupportedFormat  415  a content type or encoding that is not spoken here
    └── FhirServerError        a FHIR server did not do what was asked
        ├── FhirUnavailable    no answer, 429 or 5xx: try again (after `retry_after` seconds when given)
        ├── FhirConflict       409 or 412: somebody else was there first: read again, then decide
        ├── FhirNotFound       404 or 410
        └── FhirRejected       any other 4xx: the same request will never be taken

No message carries text of the refused body: it may hold patient data.
"""

from __future__ import annotations


class AdapterError(Exception):
    """Root of this package's errors."""


class Refused(AdapterError):
    """The sender's request cannot be taken.

    Attributes:
        status: HTTP status of the answer.
        issue_code: `OperationOutcome.issue.code` (http://hl7.org/fhir/issue-type).
    """

    status = 400
    issue_code = "invalid"


class MalformedJson(Refused):
    """The body is not JSON that every reader would read alike (RFC 8259, I-JSON RFC 7493)."""

    issue_code = "structure"


class NotFhir(Refused):
    """The body is well-formed but is not a FHIR resource that is taken here."""

    status = 422


class TooLarge(Refused):
    """The body is over the limit."""

    status = 413
    issue_code = "too-long"


class UnsupportedFormat(Refused):
    """The content type, charset or content encoding is not spoken here."""

    status = 415
    issue_code = "not-supported"


class FhirServerError(AdapterError):
    """A FHIR server did not do what was asked.

    Attributes:
        status: HTTP status, or None when there was no answer.
        retry_after: seconds the server asked to wait, or None.
    """

    def __init__(self, message: str, *, status: int | None = None, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.retry_after = retry_after


class FhirUnavailable(FhirServerError):
    """No answer, 429 or 5xx: worth another try."""


class FhirConflict(FhirServerError):
    """409 or 412: a concurrent writer, or a condition that matched several (HAPI answers 409 for both races)."""


class FhirNotFound(FhirServerError):
    """404 or 410."""


class FhirRejected(FhirServerError):
    """A 4xx that will be the same the next time."""
