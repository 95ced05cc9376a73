"""What the gateway counts itself."""

from __future__ import annotations

from collections.abc import Iterable

from monitoring.metrics.declaring import REQUEST_BUCKETS, counter, gauge, histogram
from monitoring.metrics.labels import Way

EVENTS_RECEIVED = counter(
    "gateway", "careloom_gateway_events_received_total", "Events that came in, new or not.", "source", "way"
)
EVENTS_PRODUCED = counter(
    "gateway", "careloom_gateway_events_produced_total", "Events that Kafka has acknowledged (acks=all).", "source"
)
EVENTS_REFUSED = counter(
    "gateway", "careloom_gateway_events_refused_total", "Requests answered with 4xx or 5xx.", "source", "reason"
)
REQUEST_DURATION = histogram(
    "gateway",
    "careloom_gateway_request_duration_seconds",
    "From the request's last byte to the answer; taken ones wait for Kafka.",
    REQUEST_BUCKETS,
    "source",
    "outcome",
)
VALIDATION_PROBLEMS = counter(
    "gateway",
    "careloom_gateway_validation_problems_total",
    "Resources that are not valid FHIR, taken or not.",
    "source",
)
OWN_DRAFTS_IGNORED = counter(
    "gateway",
    "careloom_gateway_own_drafts_ignored_total",
    "Notifications of what careloom itself wrote; they start nothing.",
    "source",
)
EVENT_NUMBER_GAPS = counter(
    "gateway", "careloom_gateway_event_number_gaps_total", "Times that a subscription's event number jumped.", "source"
)
EVENTS_MISSED = counter(
    "gateway",
    "careloom_gateway_events_missed_total",
    "Event numbers that were jumped over, to be searched for.",
    "source",
)
SUBSCRIPTION_ERRORS = counter(
    "gateway",
    "careloom_gateway_subscription_errors_total",
    "Notifications in which the server says that its subscription is in error.",
    "source",
)
RECONCILE_FOUND = counter(
    "gateway", "careloom_gateway_reconcile_found_total", "Events found by a search that were never notified.", "source"
)
RECONCILE_ERRORS = counter(
    "gateway", "careloom_gateway_reconcile_errors_total", "Searches for what was never notified that failed.", "source"
)
RECONCILE_LAST_SUCCESS = gauge(
    "gateway",
    "careloom_gateway_reconcile_last_success_timestamp_seconds",
    "When such a search last went through (Unix time); absent until the first.",
    "source",
)


def expect_sources(names: Iterable[str]) -> None:
    """Show the gateway's counters of these sources at 0 from the start, so that their first increase is seen.

    Args:
        names: of the configured sources.
    """
    for name in names:
        for way in Way:
            EVENTS_RECEIVED.labels(name, way)
        for one in (
            EVENTS_PRODUCED,
            VALIDATION_PROBLEMS,
            OWN_DRAFTS_IGNORED,
            EVENT_NUMBER_GAPS,
            EVENTS_MISSED,
            SUBSCRIPTION_ERRORS,
            RECONCILE_FOUND,
            RECONCILE_ERRORS,
        ):
            one.labels(name)
