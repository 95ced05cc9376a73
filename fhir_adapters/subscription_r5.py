"""R5 topic-based notification: a subscription-notification Bundle whose first entry is a SubscriptionStatus.

Source: https://hl7.org/fhir/R5/subscriptions.html#notifications; bdl-13 asks for the status in the first entry.
"""

from __future__ import annotations

from collections.abc import Sequence

from fhir_adapters.announced import join
from fhir_adapters.bundle import Entry
from fhir_adapters.errors import NotFhir
from fhir_adapters.notification import Intake
from fhir_adapters.resource_event import Sender
from fhir_adapters.subscription_status import read_status

VERSION = "R5"
BUNDLE_TYPE = "subscription-notification"


def take(sender: Sender, carried: Sequence[Entry]) -> Intake:
    """The intake of an R5 notification.

    Raises:
        NotFhir: not what the standard asks for.
    """
    status = carried[0].resource if carried else None
    if status is None or status.get("resourceType") != "SubscriptionStatus":
        raise NotFhir("Bundle.entry[0]: must be a SubscriptionStatus in a subscription-notification Bundle (bdl-13)")
    sender, notification = read_status(sender, status, where=f"{carried[0].where}.resource")
    return join(sender, notification, carried[1:])
