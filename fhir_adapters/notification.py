"""What an intake hands on: events, what is still to be read, and what a subscription said of itself."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from fhir_adapters.event import ClinicalEvent


class Kind(StrEnum):
    """Why a notification was sent (http://hl7.org/fhir/subscription-notification-type)."""

    HANDSHAKE = "handshake"
    HEARTBEAT = "heartbeat"
    EVENT = "event-notification"
    QUERY_STATUS = "query-status"
    QUERY_EVENT = "query-event"


@dataclass(frozen=True, slots=True)
class Announced:
    """One event as a notification numbers it.

    Attributes:
        number: of the event in its subscription, counted from 1; None where the sender gave none.
        timestamp: as received; None where absent.
        focus: "Type/id" of what changed; None with an empty payload.
        context: "Type/id" of what the sender thinks useful beside it.
    """

    number: int | None
    timestamp: str | None
    focus: str | None
    context: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Notification:
    """What a subscription says of itself.

    Attributes:
        kind: why it was sent.
        subscription: "Subscription/<id>", or the reference as received where it is no literal one.
        topic: canonical URL of the topic; None where absent.
        status: of the subscription (requested, active, error, off, ...); None where absent.
        events_since_start: how many events there were so far, this notification's included; None where absent.
        announced: the events of this notification.
        errors: error codes (http://terminology.hl7.org/CodeSystem/subscription-error), never their text.
    """

    kind: Kind
    subscription: str
    topic: str | None = None
    status: str | None = None
    events_since_start: int | None = None
    announced: tuple[Announced, ...] = ()
    errors: tuple[str, ...] = ()

    @property
    def failed(self) -> bool:
        """Whether the sender says that the subscription does not work: to be noted, it is no event."""
        return self.status == "error" or bool(self.errors)

    @property
    def numbers(self) -> tuple[int, ...]:
        """The event numbers of this notification, in order."""
        return tuple(a.number for a in self.announced if a.number is not None)


@dataclass(frozen=True, slots=True)
class Pointer:
    """A resource that was said to have changed but was not sent: read it.

    Attributes:
        resource_type: FHIR type.
        resource_id: logical id.
        version_id: the version that was meant, where the sender named it.
    """

    resource_type: str
    resource_id: str
    version_id: str | None = None

    @property
    def reference(self) -> str:
        """ "Type/id"."""
        return f"{self.resource_type}/{self.resource_id}"


@dataclass(frozen=True, slots=True)
class Intake:
    """What one request holds.

    Attributes:
        events: what changed, oldest first, with the bytes as they came.
        to_read: what changed but was not sent along.
        search: something changed, and the sender did not say what: search for what is newer than what was last seen.
        search_type: FHIR type that such a search may be narrowed to; None where the sender did not say.
        notification: the subscription's own word; None where the request was no topic-based notification.
    """

    events: tuple[ClinicalEvent, ...] = ()
    to_read: tuple[Pointer, ...] = ()
    search: bool = False
    search_type: str | None = None
    notification: Notification | None = None
