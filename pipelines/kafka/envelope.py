"""The envelope of an event in Kafka: CloudEvents 1.0, binary mode; the value is the resource's bytes as they came in.

Attributes stand in headers (`ce_<name>`, CloudEvents Kafka protocol binding 3.2), so that dispatcher and ledger need
not open the payload to route it, and nothing is ever serialised again.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fhir_adapters.event import ClinicalEvent
from fhir_adapters.trace_context import TraceContext, derived, parse
from pipelines.errors import PoisonReason
from pipelines.ledger.rows import EventRow, Position

Headers = Sequence[tuple[str, bytes]]

_PREFIX = "ce_"
_TYPE = "org.careloom.fhir."
_LONGEST = 512
_KEY = re.compile(rb"[0-9a-f]{32}")
#: Years of which a resource may be; others are a wrong clock's, or no time at all.
_FIRST_YEAR, _LAST_YEAR = 1900, 2999


class NotAnEvent(Exception):
    """A Kafka record that is no careloom event: a poison message; the message says which part is wrong.

    Attributes:
        reason: of the closed set.
    """

    def __init__(self, reason: PoisonReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Envelope:
    """One Kafka record, ready to be produced."""

    key: bytes
    value: bytes
    headers: list[tuple[str, bytes]]


def patient_key(salt: str, event: ClinicalEvent) -> str:
    """Salted hash of the patient (HMAC-SHA256, 32 hex digits): the Kafka key, and what order is kept by.

    An event without a patient is keyed by its resource, so that its versions stay in order.
    """
    whom = event.patient or f"{event.resource_type}/{event.resource_id or event.identity}"
    return hmac.digest(salt.encode(), f"{event.source}\x1f{whom}".encode(), "sha256").hex()[:32]


def pack(
    event: ClinicalEvent, *, salt: str, received_at: datetime, trace: TraceContext | None = None, share: float = 0.0
) -> Envelope:
    """Put an event into its envelope.

    Args:
        event: what came in.
        salt: of this installation; never leaves it.
        received_at: when the gateway had the whole request (timezone-aware).
        trace: W3C trace context of the sender, passed on (CloudEvents distributed tracing extension); where it has none
            the event's identity makes one, the same each time that the event is delivered.
        share: of the contexts made here that say that spans are recorded.
    """
    key = patient_key(salt, event)
    identity = event.identity
    trace = trace or derived(identity, share)
    attributes = {
        "specversion": "1.0",
        "id": identity,
        "source": f"urn:careloom:source:{event.source}",
        "type": f"{_TYPE}{event.resource_type}.{event.change}",
        "time": event.last_updated,
        "datacontenttype": "application/fhir+json",
        "fhirversion": event.fhir_version,
        "resourceid": event.resource_id,
        "versionid": event.version_id,
        "receivedat": received_at.astimezone(UTC).isoformat(timespec="microseconds"),
        "traceparent": trace.traceparent,
        "tracestate": trace.state or None,
    }
    headers = [(_PREFIX + name, value.encode()) for name, value in attributes.items() if value is not None]
    return Envelope(key.encode(), event.body, headers)


def unpack(position: Position, key: bytes | None, headers: Headers, timestamp_ms: int) -> EventRow:
    """Read an envelope back; the value is not looked at.

    Args:
        position: where the record stands.
        key: of the record.
        headers: of the record.
        timestamp_ms: of the record: the broker's append time.

    Raises:
        NotAnEvent: a header is missing or wrong; the message names it.
    """
    values = {name.removeprefix(_PREFIX): value for name, value in headers if name.startswith(_PREFIX)}

    def need(name: str) -> str:
        value = values.get(name)
        if value is None:
            raise NotAnEvent(PoisonReason.NO_ENVELOPE, f"header {_PREFIX}{name} is missing")
        if len(value) > _LONGEST or b"\0" in value:  # PostgreSQL takes neither, and the record would come for ever
            raise _wrong(f"header {_PREFIX}{name} is longer than {_LONGEST} bytes or holds NUL")
        try:
            return value.decode()
        except UnicodeDecodeError:
            raise _wrong(f"header {_PREFIX}{name} is not UTF-8") from None

    def said(name: str) -> str | None:
        return values[name].decode(errors="replace") if name in values else None

    def may(name: str) -> str | None:
        return need(name) if name in values else None

    if need("specversion") != "1.0":
        raise _wrong(f"header {_PREFIX}specversion is not 1.0")
    resource_type, _, change = need("type").removeprefix(_TYPE).partition(".")
    if not need("type").startswith(_TYPE) or not resource_type or change not in ("written", "deleted"):
        raise _wrong(f"header {_PREFIX}type is not {_TYPE}<resource type>.<written or deleted>")
    if key is None or not _KEY.fullmatch(key):
        raise NotAnEvent(PoisonReason.WRONG_KEY, "the record's key is no patient's key: 32 hexadecimal digits")
    trace = parse(said("traceparent"), said("tracestate"))  # a malformed one is ignored, and is no poison
    return EventRow(
        event_id=need("id"),
        source=need("source").removeprefix("urn:careloom:source:"),
        fhir_version=need("fhirversion"),
        resource_type=resource_type,
        resource_id=may("resourceid"),
        version_id=may("versionid"),
        last_updated=_instant(may("time")),
        change=change,
        patient_key=key.decode(),
        position=position,
        received_at=_instant(need("receivedat")) or record_time(timestamp_ms),
        durable_at=record_time(timestamp_ms),
        traceparent=None if trace is None else trace.traceparent,
        tracestate=(trace and trace.state) or None,
    )


def record_time(timestamp_ms: int) -> datetime:
    """A Kafka record's own time; the epoch where it has none that is a time."""
    try:
        return datetime.fromtimestamp(max(timestamp_ms, 0) / 1000, UTC)
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0, UTC)


def _wrong(message: str) -> NotAnEvent:
    return NotAnEvent(PoisonReason.WRONG_ENVELOPE, message)


def _instant(value: str | None) -> datetime | None:
    """A FHIR instant; None where it is absent, has no timezone or is of no year that a system is of: it orders nothing.

    In the year 9999 a time is none any more in some timezone, and what PostgreSQL keeps could not be read back.
    """
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value)
    except ValueError:
        return None
    return moment if moment.tzinfo is not None and _FIRST_YEAR <= moment.year <= _LAST_YEAR else None
