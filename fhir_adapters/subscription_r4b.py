"""R4B topic-based notification: a history Bundle whose first entry is a SubscriptionStatus.

Source: https://hl7.org/fhir/uv/subscriptions-backport/STU1.1/notifications.html (R4B).
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_adapters.announced import join
from fhir_adapters.bundle import Entry
from fhir_adapters.notification import Intake
from fhir_adapters.resource_event import Sender
from fhir_adapters.subscription_status import read_status

VERSION = "R4B"
BUNDLE_TYPE = "history"


def take(sender: Sender, carried: Sequence[Entry]) -> Intake:
    """The intake of an R4B notification.

    Raises:
        NotFhir: not what the standard asks for.
    """
    first = carried[0]
    sender, notification = read_status(sender, first.resource or {}, where=f"{first.where}.resource")
    return join(sender, notification, carried[1:])
