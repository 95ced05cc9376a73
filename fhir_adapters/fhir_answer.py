"""A FHIR server's HTTP answers: what they hold, and which error an unsuccessful one means."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import orjson

from fhir_adapters.errors import (
    FhirConflict,
    FhirNotFound,
    FhirRejected,
    FhirServerError,
    FhirUnavailable,
    NotFhir,
)
from fhir_adapters.references import literal, name_of
from fhir_adapters.resource_event import version_in_etag
from fhir_adapters.strict_json import bundle_resources

_HAPI_CODE = re.compile(r"HAPI-\d{4}")
_ISSUE_CODE = re.compile(r"[a-z][a-z-]{1,30}")


@dataclass(frozen=True, slots=True)
class Reading:
    """A resource as the server has it.

    Attributes:
        resource: parsed.
        body: the bytes as received.
        version: the ETag's version id, else meta.versionId; None where there is neither.
    """

    resource: dict[str, Any]
    body: bytes
    version: str | None


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    Attributes:
        resources: matches and included resources, in the server's order.
        truncated: there were more than the cap.
    """

    resources: tuple[Reading, ...]
    truncated: bool


@dataclass(frozen=True, slots=True)
class Saved:
    """What became of a create or update.

    Attributes:
        reference: "Type/id".
        version: version id, or None where the server did not say.
        created: False where it was there already (conditional create) or was updated.
    """

    reference: str
    version: str | None
    created: bool


def error_of(method: str, kind: str, answer: httpx.Response) -> FhirServerError:
    """The error that an unsuccessful answer means.

    HAPI answers 409 to a stale If-Match (others 412) and to all but one of concurrent conditional creates; 412 also
    means that a condition matched several.
    """
    status = answer.status_code
    codes = _codes(answer.content)
    message = f"{method} {kind}: the FHIR server answered {status}" + (f" ({', '.join(codes)})" if codes else "")
    if status in (408, 425, 429) or status >= 500:
        return FhirUnavailable(message, status=status, retry_after=_retry_after(answer.headers.get("retry-after")))
    if status in (409, 412):
        return FhirConflict(message, status=status)
    if status in (404, 410):
        return FhirNotFound(message, status=status)
    if status in (401, 403):
        message += "; check the token that this source's server is to be sent"
    return FhirRejected(message, status=status)


def _codes(body: bytes) -> list[str]:
    """The issue codes of an OperationOutcome and HAPI's own error numbers: closed sets, no text."""
    try:
        outcome = orjson.loads(body)
        issues = outcome["issue"] if outcome["resourceType"] == "OperationOutcome" else []
        codes = [str(issue["code"]) for issue in issues if _ISSUE_CODE.fullmatch(str(issue.get("code")))]
        codes += [found for issue in issues for found in _HAPI_CODE.findall(str(issue.get("diagnostics")))]
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return []
    return list(dict.fromkeys(codes))[:6]


def _retry_after(header: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (RFC 9110 section 10.2.3): a number, or a date."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        when = parsedate_to_datetime(header)
    except ValueError:
        return None
    when = when if when.tzinfo else when.replace(tzinfo=UTC)
    return max(0.0, (when - datetime.now(UTC)).total_seconds())


def resource_in(answer: httpx.Response, kind: str) -> dict[str, Any]:
    """The resource in an answer.

    Raises:
        FhirUnavailable: there is none (a proxy's page, an answer cut short).
    """
    try:
        parsed = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        parsed = None
    if not isinstance(parsed, dict) or "resourceType" not in parsed:
        raise FhirUnavailable(f"{kind}: the server answered {answer.status_code} with something that is not FHIR JSON")
    return parsed


def reading_in(answer: httpx.Response, kind: str) -> Reading:
    """The resource in an answer, with its bytes and version; raises as `resource_in` does."""
    resource = resource_in(answer, kind)
    version = version_in_etag(answer.headers.get("etag")) or _version(resource)
    return Reading(resource, answer.content, version)


def _version(resource: Mapping[str, Any]) -> str | None:
    meta = resource.get("meta")
    version = meta.get("versionId") if isinstance(meta, dict) else None
    return version if isinstance(version, str) else None


def matches_in(bundle: Mapping[str, Any], body: bytes, kind: str) -> list[Reading]:
    """The resources of one page of a searchset, without what the server says about the search itself.

    Raises:
        FhirUnavailable: it is no searchset.
    """
    try:
        bodies = bundle_resources(body)
    except NotFhir:
        raise FhirUnavailable(f"GET {kind}: the server answered with something that is not a searchset") from None
    return [
        Reading(entry["resource"], raw, _version(entry["resource"]))
        for entry, raw in zip(bundle.get("entry", []), bodies, strict=True)
        if raw is not None
        and isinstance(entry["resource"], dict)
        and (entry.get("search") or {}).get("mode") != "outcome"
    ]


def next_link(bundle: Mapping[str, Any]) -> str | None:
    """The URL of the next page, or None."""
    for link in bundle.get("link") or []:
        if link.get("relation") == "next" and isinstance(link.get("url"), str):
            return str(link["url"])
    return None


def saved_in(answer: httpx.Response, kind: str, *, created: bool) -> Saved:
    """What an answer to a create or update says became of the resource.

    Raises:
        FhirUnavailable: it does not say which resource it is.
    """
    where = literal(answer.headers.get("location")) or literal(answer.headers.get("content-location"))
    version = version_in_etag(answer.headers.get("etag"))
    if where is None:
        resource = resource_in(answer, kind)
        where = name_of(resource)
        version = version or _version(resource)
    if where is None or where.type != kind:
        raise FhirUnavailable(f"{kind}: the server answered {answer.status_code} and did not say which resource it is")
    return Saved(where.relative, version or where.version, created)
